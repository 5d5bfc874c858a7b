// What the package has for tests of applications.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import mongoose from 'mongoose'
import { anonymous, subject, Unavailable } from 'permcached'
import { fakePermissions, startPermcached } from 'permcached/testing'

const { ObjectId, Long } = mongoose.mongo.BSON

const SCHEMA = `
default_subject = "user"
[subject.user]
id = "string"
[resource.file]
collection = "files"
[resource.file.relations]
owner = { field = "owner_id" }
public = { where = { public = true } }
until = { where = { count = { "$gt" = 4 } } }
[resource.file.permissions]
read = "owner | public"
count = "until"
`

test('startPermcached answers over documents of the test, and sees them change', async () => {
  const [one, two] = [new ObjectId(), new ObjectId()]
  await using_(
    startPermcached({
      schema: SCHEMA,
      documents: {
        files: [
          { _id: one, owner_id: 'bob', count: Long.fromNumber(5) },
          { _id: two, public: true, at: new Date(), count: 4n },
        ],
      },
    }),
    async (server) => {
      const { permissions } = server
      assert.equal(await permissions.can('bob', 'read', 'file', one), true)
      assert.equal(await permissions.can('zoe', 'read', 'file', one), false)
      assert.equal(await permissions.can(anonymous, 'read', 'file', two), true)
      assert.equal(await permissions.can('bob', 'count', 'file', one), true)
      assert.equal(await permissions.can('bob', 'count', 'file', two), false)
      server.write('files', [{ _id: one, owner_id: 'zoe' }])
      assert.equal(await permissions.can('bob', 'read', 'file', one, { fullyConsistent: true }), false)
      assert.equal(await permissions.can('zoe', 'read', 'file', one, { fullyConsistent: true }), true)
      assert.throws(() => server.write('../files', []), TypeError)
      assert.match(server.target, /^127\.0\.0\.1:\d+$/)
    },
  )
})

async function using_(starting, use) {
  const server = await starting
  try {
    await use(server)
  } finally {
    await server.stop()
    await server.stop()
  }
}

test('startPermcached reports why the server did not start', async () => {
  await assert.rejects(startPermcached({ schema: 'not\na schema', documents: {} }), /schema/)
  await assert.rejects(startPermcached({ schema: SCHEMA, documents: {}, program: 'no-such-program' }), /PERMCACHED_PROGRAM/)
  await assert.rejects(startPermcached({ schema: SCHEMA }), TypeError)
  await assert.rejects(startPermcached({ schema: SCHEMA, documents: {}, program: 'sleep', startMs: 10 }), /sleep/)
})

test('fakePermissions answers from its table, and denies everything else', async () => {
  const fake = fakePermissions({
    bob: {
      'file:1': ['read'],
      'file:2': { read: 'EXCLUDED', write: true },
      'file:3': { read: new Unavailable('down', { code: 'UNAVAILABLE' }) },
      'folder:*': ['read'],
    },
    'link:abc': { 'file:1': ['read'] },
    anonymous: { 'file:4': ['*'] },
    '*': { 'file:5': ['read'] },
  })
  assert.equal(await fake.can('bob', 'read', 'file', '1'), true)
  assert.equal(await fake.can('bob', 'write', 'file', '1'), false)
  assert.equal(await fake.can('zoe', 'read', 'file', '1'), false)
  assert.equal(await fake.can('zoe', 'read', 'file', '5'), true)
  assert.equal(await fake.can('bob', 'read', 'folder', 'any'), true)
  assert.equal(await fake.can(subject('link', 'abc'), 'read', 'file', '1'), true)
  assert.equal(await fake.can(anonymous, 'anything', 'file', '4'), true)
  const ask = (id) => fake.check({ subject: 'bob', permission: 'read', resource: { type: 'file', id } })
  assert.equal((await ask('2')).reason, 'EXCLUDED')
  assert.equal((await ask('9')).reason, 'NO_GRANT')
  await assert.rejects(ask('3'), Unavailable)
  await assert.rejects(fake.can(12, 'read', 'file', '1'), TypeError)
  const results = await fake.checkAll(['1', '2', '3'].map((id) => ({ subject: 'bob', permission: 'read', resource: { type: 'file', id } })))
  assert.deepEqual(
    results.map(({ allowed, error }) => error?.name ?? allowed),
    [true, false, 'Unavailable'],
  )
  assert.deepEqual(await fake.filterAllowed('bob', 'read', 'file', [{ _id: '1' }, { _id: '2' }]), [{ _id: '1' }])
  await assert.rejects(fake.filterAllowed('bob', 'read', 'file', [{ _id: '3' }]), Unavailable)
  assert.deepEqual(Object.keys(await fake.permissionsOf('bob', 'file', '2')), ['read', 'write'])
  fake.answer({ bob: { 'file:1': ['read'], 'file:2': ['read'], 'file:3': ['write'] }, zoe: { 'file:1': ['read'] } })
  assert.deepEqual(JSON.parse((await fake.plan('bob', 'read', 'file')).filter), { _id: { $in: ['1', '2'] } })
  assert.equal((await fake.plan('eve', 'read', 'file')).kind, 'NONE')
  assert.deepEqual((await fake.list('bob', 'read', 'file')).resources, [{ id: '1' }, { id: '2' }])
  const { subjects, everybody } = await fake.who('read', 'file', '1')
  assert.deepEqual([subjects, everybody], [[{ id: 'bob' }, { id: 'zoe' }], 'NO'])
  await fake.invalidate({ all: true })
  assert.deepEqual(fake.invalidated, [{ all: true }])
  assert.ok(fake.asked.includes('link:abc read file:1'))
})
