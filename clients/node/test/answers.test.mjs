// Every method against the real server, with a real MongoDB and Redis.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import mongoose from 'mongoose'
import { anonymous, InvalidQuestion, Permcached, ScopeMissing, subject, Unauthenticated } from 'permcached'
import { until } from './support/databases.mjs'
import {
  ALICE,
  BOB,
  DELETED,
  HOLIDAY,
  HOLIDAY_LINK,
  NONSENSE,
  NOWHERE,
  PRIVATE,
  sampleDatabase,
  serverOver,
  SHARED,
  ZOE,
} from './support/samples.mjs'

const { ObjectId } = mongoose.mongo.BSON
const CHECKER = 'a-secret-that-may-only-check'
const mayRead = (user, id) => ({ subject: user, permission: 'read', resource: { type: 'file', id } })

let sample, server, permissions
before(async () => {
  sample = await sampleDatabase()
  // With such a long bound the tests can see cached answers, and that a token bypasses them.
  server = await serverOver(sample, { env: { AUTH_TOKENS: `backend:${CHECKER}`, MAX_STALENESS: '1m' } })
  permissions = server.permissions
  await permissions.ready()
})
after(async () => {
  await server?.stop()
  await sample?.close()
})

test('can is true or false, and rejects where there is no answer', async () => {
  assert.equal(await permissions.can(BOB, 'read', 'file', SHARED), true)
  assert.equal(await permissions.can(new ObjectId(BOB), 'read', 'file', new ObjectId(SHARED)), true)
  assert.equal(await permissions.can(ZOE, 'read', 'file', SHARED), false)
  assert.equal(await permissions.can(BOB, 'read', 'file', NOWHERE), false)
  for (const [permission, type, id, field] of [
    ['read', 'file', NONSENSE, 'resource.id'],
    ['read', 'nothing', SHARED, 'resource.type'],
    ['fly', 'file', SHARED, 'permission'],
  ]) {
    await assert.rejects(permissions.can(BOB, permission, type, id), (error) => {
      return error instanceof InvalidQuestion && error.fields.some((each) => each.field === field) && error.message.includes(field)
    })
  }
})

test('check has the reason, the grant, and what the answer is as of', async () => {
  const allowed = await permissions.check(mayRead(BOB, SHARED))
  assert.equal(allowed.allowed, true)
  assert.equal(allowed.reason, undefined)
  assert.equal(allowed.grantedBy, 'folder#guest')
  assert.ok(allowed.asOf.length > 0)
  assert.ok(allowed.ageMs >= 0)
  assert.equal(allowed.stale, false)
  const denied = await permissions.check(mayRead(ZOE, SHARED))
  assert.deepEqual([denied.allowed, denied.reason, denied.grantedBy], [false, 'NO_GRANT', undefined])
  assert.equal((await permissions.check(mayRead(BOB, NOWHERE))).reason, 'NOT_FOUND')
  assert.equal((await permissions.check(mayRead(ALICE, DELETED))).reason, 'EXCLUDED')
})

test('an answer that time will end has validUntil', async () => {
  const _id = new ObjectId()
  const expires_at = new Date(Date.now() + 3_600_000)
  const share = {
    _id,
    file_id: new ObjectId(PRIVATE),
    shared_with_user_id: new ObjectId(ZOE),
    share_type: 'internal',
    is_active: true,
    expires_at,
  }
  await sample.database.collection('shares').insertOne(share)
  const { allowed, validUntil } = await permissions.check(mayRead(ZOE, PRIVATE), { fullyConsistent: true })
  assert.equal(allowed, true)
  assert.deepEqual(validUntil, expires_at)
  await sample.database.collection('shares').deleteOne({ _id })
})

test('links and anonymous visitors are subjects, too', async () => {
  assert.equal(await permissions.can(subject('link', HOLIDAY_LINK), 'read', 'file', HOLIDAY), true)
  assert.equal(await permissions.can(subject('link', HOLIDAY_LINK), 'read', 'file', PRIVATE), false)
  assert.equal(await permissions.can(anonymous, 'read', 'file', SHARED), false)
})

test('checkAll answers in order, with errors in their places', async () => {
  const ids = [NONSENSE, PRIVATE, SHARED, NOWHERE, SHARED]
  const results = await permissions.checkAll(ids.map((id) => mayRead(BOB, id)))
  assert.deepEqual(
    results.map(({ allowed, reason, error }) => error?.name ?? reason ?? allowed),
    ['InvalidQuestion', 'NO_GRANT', true, 'NOT_FOUND', true],
  )
  assert.deepEqual(
    results[0].error.fields.map(({ field }) => field),
    ['resource.id'],
  )
  assert.deepEqual(await permissions.checkAll([]), [])
})

test('filterAllowed keeps what is allowed, in order, and rejects if one item has no answer', async () => {
  const items = [PRIVATE, SHARED, NOWHERE].map((id) => ({ _id: new ObjectId(id) }))
  assert.deepEqual(await permissions.filterAllowed(BOB, 'read', 'file', items), [items[1]])
  assert.deepEqual(await permissions.filterAllowed(BOB, 'read', 'file', new Set([SHARED, PRIVATE]), (id) => id), [SHARED])
  await assert.rejects(
    permissions.filterAllowed(BOB, 'read', 'file', [SHARED, NONSENSE], (id) => id),
    InvalidQuestion,
  )
})

test('permissionsOf has every permission by its name', async () => {
  const all = await permissions.permissionsOf(BOB, 'file', SHARED)
  assert.deepEqual(Object.keys(all).sort(), ['delete', 'purge', 'read', 'restore', 'share', 'write'])
  assert.equal(all.read.allowed, true)
  assert.equal(all.write.reason, 'NO_GRANT')
})

test('explain has the steps', async () => {
  const { answer, steps, truncated } = await permissions.explain(mayRead(BOB, SHARED))
  assert.equal(answer.allowed, true)
  assert.equal(truncated, false)
  assert.deepEqual([steps[0].step, steps[0].outcome, steps[0].depth, steps[0].object], ['QUESTION', 'HOLDS', 0, `file:${SHARED}`])
  const grants = steps.flatMap((step) => step.grants)
  assert.ok(grants.some((grant) => grant.grantee === `user:${BOB}` && grant.outcome === 'HOLDS'))
  assert.ok(steps.some((step) => step.fact?.collection === 'shares' && step.fact.documents.length > 0))
  const denied = await permissions.explain(mayRead(ZOE, SHARED))
  assert.equal(denied.steps[0].reason, 'NO_GRANT')
})

test('an unknown token, none, and a token without the scope are refused', async () => {
  for (const token of ['another-secret', undefined]) {
    const refused = new Permcached({ target: server.target, token, deadlineMs: 5_000 })
    await assert.rejects(refused.can(BOB, 'read', 'file', SHARED), Unauthenticated)
    await assert.rejects(refused.ready(), Unauthenticated)
    await refused.close()
  }
  const checker = new Permcached({ target: server.target, token: CHECKER, deadlineMs: 5_000 })
  assert.equal(await checker.can(BOB, 'read', 'file', SHARED), true)
  await assert.rejects(checker.explain(mayRead(BOB, SHARED)), ScopeMissing)
  await assert.rejects(checker.invalidate({ all: true }), ScopeMissing)
  await assert.rejects(checker.watch().next(), ScopeMissing)
  await checker.close()
})

test('a check sees the own write of a mongoose session', async () => {
  const connection = await mongoose.createConnection(sample.uri).asPromise()
  const Share = connection.model('Share', new mongoose.Schema({}, { strict: false }), 'shares')
  const share = { file_id: new ObjectId(PRIVATE), shared_with_user_id: new ObjectId(ZOE), share_type: 'internal', is_active: true }
  const write = async (change) => {
    const session = await connection.startSession()
    try {
      await change(session)
      return await permissions.can(ZOE, 'read', 'file', PRIVATE, { atLeastAsFresh: session })
    } finally {
      await session.endSession()
    }
  }
  assert.equal(await permissions.can(ZOE, 'read', 'file', PRIVATE, { fullyConsistent: true }), false)
  assert.equal(await write((session) => Share.create([share], { session })), true)
  assert.equal(await write((session) => Share.deleteMany({ shared_with_user_id: new ObjectId(ZOE) }, { session })), false)
  await connection.close()
})

test('each consistency is answered', async () => {
  const { asOf } = await permissions.check(mayRead(BOB, SHARED))
  for (const options of [{ atLeastAsFresh: asOf }, { maxAgeMs: 50 }, { fullyConsistent: true }]) {
    assert.equal(await permissions.can(BOB, 'read', 'file', SHARED, options), true)
  }
  const future = { seconds: 4_000_000_000, increment: 1 }
  await assert.rejects(permissions.can(BOB, 'read', 'file', SHARED, { atLeastAsFresh: future }), (error) => {
    return error instanceof InvalidQuestion && error.fields[0].field.startsWith('consistency')
  })
})

test('watch reports a change, and a check with its token sees it', async () => {
  const controller = new AbortController()
  const { asOf } = await permissions.check(mayRead(BOB, SHARED), { fullyConsistent: true })
  const _id = new ObjectId()
  const share = { _id, file_id: new ObjectId(PRIVATE), shared_with_user_id: new ObjectId(ZOE), share_type: 'internal', is_active: true }
  await sample.database.collection('shares').insertOne(share)
  let seen
  for await (const { changes } of permissions.watch({ since: asOf, signal: controller.signal })) {
    seen = changes.find((change) => change.type === 'key' && change.collection === 'shares' && change.id === PRIVATE)
    if (seen) break
  }
  assert.equal(seen.field, 'file_id')
  assert.equal(await permissions.can(ZOE, 'read', 'file', PRIVATE, { atLeastAsFresh: seen.token }), true)
  await sample.database.collection('shares').deleteOne({ _id })
})

test('watch ends with its signal, and confirms progress while nothing changes', async () => {
  const controller = new AbortController()
  const tokens = []
  for await (const { token } of permissions.watch({ signal: controller.signal })) {
    if (token) tokens.push(token)
    if (tokens.length === 2) controller.abort()
  }
  assert.equal(tokens.length, 2)
})

test('invalidate returns a token, and reports a change of the subject', async () => {
  const controller = new AbortController()
  const watching = permissions.watch({ signal: controller.signal })
  await watching.next()
  const { token, published } = await permissions.invalidate({ subjects: [BOB], resources: [{ type: 'file', id: SHARED }] })
  assert.equal(published, true)
  assert.equal(await permissions.can(BOB, 'read', 'file', SHARED, { atLeastAsFresh: token }), true)
  const found = await until('the change', async () => {
    const { value } = await watching.next()
    return value.changes.find((change) => change.type === 'subject')
  })
  assert.deepEqual([found.subjectType, found.subjectId], ['user', BOB])
  controller.abort()
  await assert.rejects(permissions.invalidate({}), InvalidQuestion)
})
