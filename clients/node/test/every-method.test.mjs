import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import * as api from 'permcached'
import * as testing from 'permcached/testing'
import { everyMethod } from './support/every-method.cjs'
import { BOB, PRIVATE, samples, schema, SHARED, ZOE } from './support/samples.mjs'

test('every method answers in ESM', async () => {
  await everyMethod(api, testing, {
    schema,
    documents: samples,
    users: { bob: BOB, zoe: ZOE },
    files: { shared: SHARED, private: PRIVATE },
  })
})

test('both module systems share one copy, so that instanceof holds across them', () => {
  const require = createRequire(import.meta.url)
  assert.equal(require('permcached').Unavailable, api.Unavailable)
  assert.deepEqual(
    Object.keys(require('permcached'))
      .filter((name) => name !== '__esModule')
      .sort(),
    Object.keys(api).sort(),
  )
})
