// The drop-in, called exactly as the cache that it replaces, against the real server and a real MongoDB.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import mongoose from 'mongoose'
import { createPermissionCache, Unavailable } from 'permcached'
import { fakePermissions } from 'permcached/testing'
import { ALICE, BOB, NONSENSE, NOWHERE, PRIVATE, sampleDatabase, serverOver, SHARED } from './support/samples.mjs'

const { ObjectId } = mongoose.mongo.BSON

let sample, server
const errors = []
let checkPermission, checkBatchPermissions, invalidatePermission
before(async () => {
  sample = await sampleDatabase()
  server = await serverOver(sample)
  ;({ checkPermission, checkBatchPermissions, invalidatePermission } = createPermissionCache(server.permissions, {
    onError: (error) => errors.push(error),
  }))
})
after(async () => {
  await server?.stop()
  await sample?.close()
})

test('checkPermission(userId, resourceId, resourceType, action) is true or false, and asks for read by default', async () => {
  assert.equal(await checkPermission(BOB, SHARED, 'file'), true)
  assert.equal(await checkPermission(BOB, SHARED, 'file', 'read'), true)
  assert.equal(await checkPermission(BOB, SHARED, 'file', 'write'), false)
  assert.equal(await checkPermission(new ObjectId(ALICE), new ObjectId(SHARED), 'file', 'write'), true)
  assert.equal(await checkPermission(BOB, NOWHERE, 'file'), false)
  assert.deepEqual(errors, [])
})

test('checkPermission is false for every error', async () => {
  errors.length = 0
  for (const ask of [
    () => checkPermission(BOB, NONSENSE, 'file'),
    () => checkPermission(BOB, SHARED, 'nothing'),
    () => checkPermission(undefined, SHARED, 'file'),
  ]) {
    assert.equal(await ask(), false)
  }
  assert.equal(errors.length, 3)
  const broken = createPermissionCache(fakePermissions({ a: { 'file:b': { read: new Unavailable('down', { code: 'UNAVAILABLE' }) } } }), {
    onError: () => {},
  })
  assert.equal(await broken.checkPermission('a', 'b', 'file'), false)
})

test('checkBatchPermissions(userId, resources) returns the same objects, in order, with allowed', async () => {
  errors.length = 0
  const resources = [
    { resourceId: SHARED, resourceType: 'file', action: 'read', name: 'a field of the application' },
    { resourceId: SHARED, resourceType: 'file', action: 'write' },
    { resourceId: PRIVATE, resourceType: 'file' },
    { resourceId: NONSENSE, resourceType: 'file', action: 'read' },
    { resourceId: undefined, resourceType: 'file', action: 'read' },
  ]
  const { calls } = server.permissions.counts
  const results = await checkBatchPermissions(BOB, resources)
  assert.deepEqual(
    results,
    resources.map((resource, index) => ({ ...resource, allowed: index === 0 })),
  )
  assert.equal(server.permissions.counts.calls, calls + 1)
  assert.equal(errors.length, 2)
  assert.deepEqual(await checkBatchPermissions(BOB, []), [])
})

test('invalidatePermission(resourceId, resourceType) returns nothing', async () => {
  errors.length = 0
  assert.equal(await invalidatePermission(SHARED, 'file'), undefined)
  assert.deepEqual(errors, [])
  assert.equal(await invalidatePermission(NONSENSE, 'file'), undefined)
  assert.equal(errors.length, 1)
})
