// Plans and lists: their requests and responses, and the errors with reasons.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import grpc from '@grpc/grpc-js'
import mongoose from 'mongoose'
import { NoAnswer, Permcached, subject, TooLarge } from 'permcached'
import { detail, ErrorInfoSchema, failure, scripted } from './support/scripted.mjs'

const { ObjectId } = mongoose.mongo.BSON
const { status } = grpc

let server, permissions
before(async () => {
  server = await scripted()
  permissions = new Permcached({ target: server.target, defaultSubject: 'user', deadlineMs: 10_000 })
})
after(async () => {
  await permissions.close()
  server.stop()
})

const at = { seconds: 1_700_000_000n, nanos: 5e8 }

test('plan asks with its options, and has the query with its kind', async () => {
  server.handlers.planFilter = () => ({
    ...{
      kind: 3,
      filter: '{"owner_id":{"$oid":"f11e00000000000000000002"}}',
      now: at,
      validUntil: at,
      asOf: 'token',
      age: { seconds: 1n, nanos: 5e5 },
      ids: 7,
    },
    notes: [
      { code: 2, message: 'many', branch: 'file#guest', count: 300 },
      { code: 99, message: 'new' },
    ],
  })
  const plan = await permissions.plan(subject('link', 'abc'), 'read', 'file', {
    maxIds: 5,
    referenceField: 'file_id',
    fullyConsistent: true,
  })
  assert.deepEqual(plan, {
    ...{
      kind: 'SUPERSET',
      filter: '{"owner_id":{"$oid":"f11e00000000000000000002"}}',
      now: new Date(1_700_000_000_500),
      validUntil: new Date(1_700_000_000_500),
    },
    ...{ asOf: 'token', ageMs: 1001, ids: 7 },
    notes: [
      { code: 'MANY_VALUES', message: 'many', branch: 'file#guest', count: 300 },
      { code: 'UNKNOWN', message: 'new' },
    ],
  })
  const { request } = server.calls.at(-1)
  assert.deepEqual(
    [request.subject.type, request.permission, request.resourceType, request.maxIds, request.referenceField],
    ['link', 'read', 'file', 5, 'file_id'],
  )
  assert.equal(request.consistency.requirement.case, 'fullyConsistent')
})

test('a plan of an unknown kind is a SUPERSET, and one without a query is no plan', async () => {
  server.handlers.planFilter = () => ({ kind: 77, filter: '{"a":1}', now: at })
  assert.equal((await permissions.plan('a', 'read', 'file')).kind, 'SUPERSET')
  for (const response of [{}, { kind: 2, filter: '', now: at }, { kind: 0, filter: '{}', now: at }]) {
    server.handlers.planFilter = () => response
    await assert.rejects(permissions.plan('a', 'read', 'file'), NoAnswer)
  }
})

test('an error of a plan has its reason and what it is about', async () => {
  const info = detail(ErrorInfoSchema, {
    reason: 'NO_INDEX',
    domain: 'permcached',
    metadata: { collection: 'shares', command: 'db.shares.createIndex({})' },
  })
  server.handlers.planFilter = () => Promise.reject(failure(status.FAILED_PRECONDITION, 'no index', info))
  await assert.rejects(
    permissions.plan('a', 'read', 'file'),
    (error) => error instanceof NoAnswer && error.reason === 'NO_INDEX' && error.metadata.collection === 'shares',
  )
  const many = detail(ErrorInfoSchema, { reason: 'TOO_MANY_IDS', metadata: { max: '1000' } })
  server.handlers.planFilter = () => Promise.reject(failure(status.RESOURCE_EXHAUSTED, 'too many', many))
  await assert.rejects(permissions.plan('a', 'read', 'file'), (error) => error instanceof TooLarge && error.reason === 'TOO_MANY_IDS')
})

test('list has pages, and its condition may have ObjectIds and dates', async () => {
  server.handlers.listResources = () => ({
    resources: [
      { id: '1', grantedBy: 'file#owner' },
      { id: '2', validUntil: at },
    ],
    nextPageToken: 'next',
    asOf: 'token',
    examined: 5n,
  })
  const folder_id = new ObjectId()
  const page = await permissions.list('a', 'read', 'file', {
    pageSize: 2,
    pageToken: 'page',
    within: { folder_id, at: { $gt: new Date(0) } },
  })
  assert.deepEqual(page, {
    resources: [
      { id: '1', grantedBy: 'file#owner' },
      { id: '2', validUntil: new Date(1_700_000_000_500) },
    ],
    ...{ nextPageToken: 'next', asOf: 'token', ageMs: 0, examined: 5 },
  })
  const { request } = server.calls.at(-1)
  assert.deepEqual([request.pageSize, request.pageToken], [2, 'page'])
  assert.deepEqual(JSON.parse(request.within), {
    folder_id: { $oid: String(folder_id) },
    at: { $gt: { $date: '1970-01-01T00:00:00.000Z' } },
  })
  await permissions.list('a', 'read', 'file', { within: '{"a":1}' })
  assert.equal(server.calls.at(-1).request.within, '{"a":1}')
  server.handlers.listResources = () => ({})
  assert.equal((await permissions.list('a', 'read', 'file')).nextPageToken, undefined)
})

test('who has the subjects, and whether everybody else may, too', async () => {
  for (const [number, name] of [
    [1, 'NO'],
    [2, 'YES'],
    [3, 'WITH_EXCLUSIONS'],
    [0, 'WITH_EXCLUSIONS'],
    [9, 'WITH_EXCLUSIONS'],
  ]) {
    server.handlers.listSubjects = () => ({ subjects: [{ id: 'bob' }], everybody: number, sets: ['team:1#member'] })
    const page = await permissions.who('read', 'file', '1', { subjectType: 'link' })
    assert.deepEqual([page.subjects, page.everybody, page.sets], [[{ id: 'bob' }], name, ['team:1#member']])
  }
  const { request } = server.calls.at(-1)
  assert.deepEqual([request.subjectType, request.resource.type, request.resource.id], ['link', 'file', '1'])
  await permissions.who('read', 'file', '1')
  assert.equal(server.calls.at(-1).request.subjectType, 'user')
})

test('options that mean nothing are TypeErrors', async () => {
  for (const options of [{ maxIds: 0 }, { maxIds: 10_001 }, { maxIds: '5' }, { pageSize: 5 }, { referenceField: 5 }, { deadlineMs: 0 }]) {
    await assert.rejects(permissions.plan('a', 'read', 'file', options), TypeError, JSON.stringify(options))
  }
  for (const options of [{ pageSize: 1_001 }, { maxIds: 5 }, { within: 5 }, { pageToken: 5 }]) {
    await assert.rejects(permissions.list('a', 'read', 'file', options), TypeError, JSON.stringify(options))
  }
  await assert.rejects(permissions.who('read', 'file', 5), TypeError)
})

test('a condition of a list with what JSON has no value for is refused', async () => {
  server.handlers.listResources = () => ({ resources: [], asOf: 'token' })
  class Folder {
    id = 1
  }
  const calls = server.calls.length
  for (const value of [undefined, NaN, Infinity, () => 1, Symbol('a'), new Map(), /a/, new Folder(), new Date(NaN)]) {
    for (const within of [{ a: value }, { a: [value] }, { a: { $in: [1, value] } }]) {
      await assert.rejects(async () => permissions.list('a', 'read', 'file', { within }), TypeError, String(value))
    }
  }
  await assert.rejects(async () => permissions.list('a', 'read', 'file', { within: new Map([['a', 1]]) }), TypeError)
  assert.equal(server.calls.length, calls)
  const { Long, Decimal128, UUID } = mongoose.mongo.BSON
  const within = { a: null, b: [1.5, 'a', true, 2n], c: Object.assign(Object.create(null), { d: Long.fromNumber(7) }) }
  await permissions.list('a', 'read', 'file', { within: { ...within, e: new UUID(), f: Decimal128.fromString('1') } })
  assert.equal(JSON.parse(server.calls.at(-1).request.within).b[3].$numberLong, '2')
})
