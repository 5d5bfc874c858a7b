'use strict'
const { test } = require('node:test')
const { everyMethod } = require('./support/every-method.cjs')

test('every method answers in CommonJS', async () => {
  const { repository, samples, schema, BOB, ZOE, SHARED, PRIVATE } = await import('./support/samples.mjs')
  void repository
  await everyMethod(require('permcached'), require('permcached/testing'), {
    schema,
    documents: samples,
    users: { bob: BOB, zoe: ZOE },
    files: { shared: SHARED, private: PRIVATE },
  })
})
