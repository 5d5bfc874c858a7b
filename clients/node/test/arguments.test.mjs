// What the methods accept as arguments, and that everything else is a TypeError before anything is sent.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import mongoose from 'mongoose'
import { anonymous, InvalidQuestion, momentOf, Permcached, subject } from 'permcached'
import { scripted } from './support/scripted.mjs'

const { ObjectId, UUID, Timestamp } = mongoose.mongo.BSON
const HEX = 'f11e00000000000000000002'

let server, permissions
before(async () => {
  server = await scripted()
  permissions = new Permcached({ target: server.target, defaultSubject: 'user', deadlineMs: 10_000 })
})
after(async () => {
  await permissions.close()
  server.stop()
})

async function sent(ask) {
  server.calls.length = 0
  await ask()
  return server.calls.at(-1).request
}

test('an id is a string, a bigint, a UUID, or whatever has toHexString()', async () => {
  const uuid = new UUID()
  for (const [id, text] of [
    ['a', 'a'],
    [12345678901234567890n, '12345678901234567890'],
    [new ObjectId(HEX), HEX],
    [uuid, uuid.toHexString()],
    [{ toHexString: () => 'abc' }, 'abc'],
  ]) {
    assert.equal((await sent(() => permissions.can(id, 'read', 'file', 'x'))).subject.id, text)
    assert.equal((await sent(() => permissions.can('x', 'read', 'file', id))).resource.id, text)
  }
})

test('anything else as an id is a TypeError that does not show the value', async () => {
  for (const id of [
    undefined,
    null,
    12,
    NaN,
    true,
    [],
    ['a'],
    {},
    { id: 'a' },
    Symbol('a'),
    new Date(),
    { toHexString: 'secret' },
    { toHexString: () => 1 },
    { toHexString: () => '' },
  ]) {
    for (const ask of [() => permissions.can(id, 'read', 'file', 'x'), () => permissions.can('x', 'read', 'file', id)]) {
      await assert.rejects(ask, (error) => error instanceof TypeError && !error.message.includes('secret'))
    }
  }
  for (const ask of [
    () => permissions.can('a', undefined, 'file', 'x'),
    () => permissions.can('a', 'read', undefined, 'x'),
    () => permissions.check(undefined),
    () => permissions.check({ subject: 'a', permission: 'read' }),
    () => permissions.check({ subject: { type: 'link' }, permission: 'read', resource: { type: 'file', id: 'x' } }),
    () => permissions.check({ subject: { type: '', id: 'a' }, permission: 'read', resource: { type: 'file', id: 'x' } }),
    () => permissions.filterAllowed('a', 'read', 'file', [{ id: 'no _id' }]),
    () => permissions.can('a', 'read', 'file', 'x', { at_least_as_fresh: 'token' }),
  ]) {
    await assert.rejects(ask, TypeError)
  }
})

test('an id that UTF-8 cannot express, or that is too long, is an invalid question', async () => {
  server.calls.length = 0
  await assert.rejects(
    permissions.can('a\ud800', 'read', 'file', 'x'),
    (error) => error instanceof InvalidQuestion && error.fields[0].field === 'subject.id',
  )
  await assert.rejects(
    permissions.can('a', 'read', 'file', 'x'.repeat(1025)),
    (error) => error instanceof InvalidQuestion && error.fields[0].field === 'resource.id',
  )
  const question = { permission: 'read', resource: { type: 'file', id: 'x' } }
  const [bad, good] = await permissions.checkAll([
    { ...question, subject: '\udfff' },
    { ...question, subject: 'a' },
  ])
  assert.ok(bad.error instanceof InvalidQuestion)
  assert.equal(good.allowed, true)
  assert.equal(server.calls.length, 1)
})

test('a subject is an id of the default type, a subject of another type, or anonymous', async () => {
  const subjectOf = async (who) => (await sent(() => permissions.can(who, 'read', 'file', 'x'))).subject
  const { type, id, anonymous: isAnonymous } = await subjectOf('a')
  assert.deepEqual([type, id, isAnonymous], ['user', 'a', false])
  const link = await subjectOf(subject('link', 'token'))
  assert.deepEqual([link.type, link.id], ['link', 'token'])
  const nobody = await subjectOf(anonymous)
  assert.deepEqual([nobody.type, nobody.id, nobody.anonymous], ['', '', true])
  const plain = new Permcached({ target: server.target })
  assert.equal((await sent(() => plain.can('a', 'read', 'file', 'x'))).subject.type, '')
  await plain.close()
})

test('consistency: a token, an operationTime, two numbers, or a session after its write', async () => {
  const consistencyOf = async (options) => (await sent(() => permissions.can('a', 'read', 'file', 'x', options))).consistency?.requirement
  assert.equal(await consistencyOf({}), undefined)
  assert.equal(await consistencyOf({ fullyConsistent: false }), undefined)
  assert.equal((await consistencyOf({ fullyConsistent: true })).case, 'fullyConsistent')
  assert.equal((await consistencyOf({ atLeastAsFresh: 'token' })).value.moment.value, 'token')
  const { value } = await consistencyOf({ maxAgeMs: 1500.5 })
  assert.deepEqual([value.seconds, value.nanos], [1n, 500500000])
  // The halves of an operationTime have no sign.
  const operationTime = new Timestamp({ t: 4_000_000_000, i: 3_000_000_000 })
  for (const atLeastAsFresh of [operationTime, { operationTime }, { seconds: 4_000_000_000, increment: 3_000_000_000 }]) {
    const { moment } = (await consistencyOf({ atLeastAsFresh })).value
    assert.deepEqual([moment.case, moment.value.seconds, moment.value.increment], ['operationTime', 4_000_000_000, 3_000_000_000])
  }
  assert.deepEqual(momentOf({ operationTime }), { seconds: 4_000_000_000, increment: 3_000_000_000 })
})

test('options that mean nothing or contradict each other are TypeErrors', async () => {
  for (const options of [
    { atLeastAsFresh: 'token', fullyConsistent: true },
    { atLeastAsFresh: 'token', maxAgeMs: 1 },
    { atLeastAsFresh: '' },
    { atLeastAsFresh: null },
    { atLeastAsFresh: {} },
    { atLeastAsFresh: { operationTime: undefined } },
    { atLeastAsFresh: { seconds: 1, increment: -1 } },
    { atLeastAsFresh: { seconds: 1.5, increment: 1 } },
    { maxAgeMs: 0 },
    { maxAgeMs: '1' },
    { maxAgeMs: Infinity },
    { fullyConsistent: 'yes' },
    { deadlineMs: 0 },
    { deadlineMs: NaN },
    { deadlineMs: 2 ** 31 },
  ]) {
    await assert.rejects(permissions.can('a', 'read', 'file', 'x', options), TypeError, JSON.stringify(options))
  }
})

test('the constructor rejects what it cannot use', () => {
  for (const options of [
    undefined,
    {},
    { target: undefined },
    { target: '' },
    { target: 12 },
    { target: 'localhost' },
    { target: 'localhost:' },
    { target: 'localhost:0' },
    { target: 'localhost:70000' },
    { target: '::1:50051' },
    { target: '[::g]:50051' },
    { target: 'ftp://localhost:50051' },
    { target: 'http://localhost' },
    { target: 'http://localhost:50051/path' },
    { target: 'http://user:hidden-password@localhost:50051' },
    { target: 'https://localhost:50051', tls: false },
    { target: 'http://localhost:50051', tls: true },
    { target: 'localhost:50051', token: '' },
    { target: 'localhost:50051', token: 'hidden\npassword' },
    { target: 'localhost:50051', deadlineMs: 0 },
    { target: 'localhost:50051', near: true },
    { target: 'localhost:50051', defaultSubject: 1 },
  ]) {
    assert.throws(
      () => new Permcached(options),
      (error) => error instanceof TypeError && !/hidden/.test(error.message),
      JSON.stringify(options),
    )
  }
})

test('a token is not sent in plaintext to a public address', async () => {
  for (const target of ['8.8.8.8:50051', 'http://8.8.8.8:50051', '[2001:4860:4860::8888]:50051', '172.32.0.1:1', '[::ffff:8.8.8.8]:1']) {
    assert.throws(
      () => new Permcached({ target, token: 'a-token' }),
      (error) => error instanceof TypeError && !error.message.includes('a-token'),
      target,
    )
    for (const options of [{ insecure: true }, { token: undefined }]) await new Permcached({ target, token: 'a-token', ...options }).close()
  }
  for (const target of [
    '127.0.0.1:1',
    '10.1.2.3:1',
    '172.31.255.1:1',
    '192.168.1.1:1',
    '[::1]:1',
    '[fd00::1]:1',
    '[::ffff:10.0.0.1]:1',
    'https://8.8.8.8',
    'name:1',
  ]) {
    await new Permcached({ target, token: 'a-token' }).close()
  }
})

test('every form of a target reaches the server', async () => {
  const { port } = server
  for (const target of [
    `127.0.0.1:${port}`,
    `localhost:${port}`,
    `dns:///localhost:${port}`,
    `dns:localhost:${port}`,
    `http://127.0.0.1:${port}`,
    `http://localhost:${port}/`,
    ` 127.0.0.1:${port} `,
  ]) {
    const client = new Permcached({ target, token: 'a-token', deadlineMs: 10_000 })
    assert.equal(await client.can('a', 'read', 'file', 'x'), true, target)
    assert.deepEqual(server.calls.at(-1).metadata.get('authorization'), ['Bearer a-token'])
    await client.close()
  }
})
