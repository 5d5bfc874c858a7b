// The near cache against the real server and a real MongoDB, with faults.
import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import mongoose from 'mongoose'
import { Permcached, ScopeMissing } from 'permcached'
import { until } from './support/databases.mjs'
import { proxyTo } from './support/proxy.mjs'
import { BOB, sampleDatabase, serverOver, serverOverFiles, SHARED, ZOE } from './support/samples.mjs'

const BOUND_MS = 1_000
const WATCHING = 'a-token-of-the-scope-watch'
const CHECKING = 'a-token-of-the-scope-check'
const id = (hex) => new mongoose.mongo.ObjectId(hex)

let sample, server, proxy
const open = []
before(async () => {
  sample = await sampleDatabase()
  server = await serverOver(sample, { env: { AUTH_TOKENS: `cache:${WATCHING}:watch,web:${CHECKING}`, MAX_STALENESS: `${BOUND_MS}ms` } })
  const [host, port] = server.target.split(':')
  proxy = await proxyTo({ host, port: Number(port) })
})
afterEach(async () => {
  process.kill(server.pid, 'SIGCONT')
  proxy.resume()
  for (const permissions of open.splice(0)) await permissions.close()
})
after(async () => {
  proxy?.close()
  await server?.stop()
  await sample?.close()
})

/** A client with a near cache, whose connection passes through the proxy. */
async function near(options = {}) {
  const permissions = new Permcached({
    ...{ target: proxy.address, token: WATCHING, defaultSubject: 'user', deadlineMs: 5_000, near: { maxEntries: 100 } },
    ...options,
  })
  open.push(permissions)
  await permissions.ready()
  return permissions
}

const asks = (permissions, options) =>
  permissions.check({ subject: ZOE, permission: 'read', resource: { type: 'file', id: SHARED } }, options)

/** Waits until an answer comes from this process, and returns it. */
async function untilNear(permissions, allowed = true) {
  return until('an answer that is kept', async () => {
    const answer = await asks(permissions)
    return answer.tier === 'NEAR' && answer.allowed === allowed && answer
  })
}

const shares = () => sample.database.collection('shares')
const SHARE = { file_id: id(SHARED), shared_with_user_id: id(ZOE), share_type: 'internal', is_active: true, near: true }
/** Lets Zoé read the file by a share of this test alone. */
const grant = () => shares().insertOne({ ...SHARE })
const revoke = () => shares().deleteMany({ file_id: id(SHARED), shared_with_user_id: id(ZOE) })

/** Asks for a second, and fails if an answer allows. */
async function allowsNothing(permissions) {
  const end = performance.now() + 1_000
  while (performance.now() < end) {
    assert.notEqual((await asks(permissions, { deadlineMs: 500 }).catch(() => undefined))?.allowed, true)
    await pause(1)
  }
}

/** Lets Zoé read the file again, and waits until an answer allows it. */
async function untilGranted(permissions) {
  await grant()
  await until('an allow', async () => permissions.can(ZOE, 'read', 'file', SHARED))
}

test('a kept answer is one of this process, and a revocation ends it within the bound', async () => {
  await grant()
  const permissions = await near()
  const kept = await untilNear(permissions)
  assert.ok(kept.ageMs < BOUND_MS && kept.grantedBy === 'file#guest', JSON.stringify(kept))
  const before = permissions.counts
  for (let count = 0; count < 1_000; count += 1) assert.equal(await permissions.can(ZOE, 'read', 'file', SHARED), true)
  const { calls, nearHits, questions } = permissions.counts
  assert.ok(calls - before.calls < 20 && nearHits - before.nearHits > 900 && questions - before.questions === 1_000)
  assert.equal((await permissions.checkAll([{ subject: ZOE, permission: 'read', resource: { type: 'file', id: SHARED } }]))[0].tier, 'NEAR')
  // Whoever asks for more than the default is not answered from here.
  for (const options of [{ fullyConsistent: true }, { maxAgeMs: 900 }, { atLeastAsFresh: kept.asOf }]) {
    assert.notEqual((await asks(permissions, options)).tier, 'NEAR')
  }
  await assert.rejects(asks(permissions, { signal: AbortSignal.abort() }), { name: 'AbortError' })
  await revoke()
  const revoked = performance.now()
  await until('a denial', async () => !(await permissions.can(ZOE, 'read', 'file', SHARED)))
  assert.ok(performance.now() - revoked < BOUND_MS, `${performance.now() - revoked}`)
  await untilNear(permissions, false)
  await grant()
  const granted = performance.now()
  await until('an allow', async () => permissions.can(ZOE, 'read', 'file', SHARED))
  assert.ok(performance.now() - granted < BOUND_MS, `${performance.now() - granted}`)
})

test('no kept answer is used while the server stands still, and later ones are right', async () => {
  const permissions = await near()
  await untilNear(permissions)
  process.kill(server.pid, 'SIGSTOP')
  const stopped = performance.now()
  await revoke()
  await until('no hit', async () => (await asks(permissions, { deadlineMs: 20 }).catch(() => undefined))?.tier !== 'NEAR')
  assert.ok(performance.now() - stopped < BOUND_MS)
  await pause(BOUND_MS)
  await assert.rejects(asks(permissions, { deadlineMs: 50 }))
  process.kill(server.pid, 'SIGCONT')
  // Whatever was under way meanwhile, nothing from before the revocation is used.
  await allowsNothing(permissions)
  await untilNear(permissions, false)
  await untilGranted(permissions)
})

test('no kept answer is used while nothing passes, nor what was held back afterwards', async () => {
  const permissions = await near()
  await untilNear(permissions)
  proxy.stall()
  await revoke()
  await pause(BOUND_MS)
  await assert.rejects(asks(permissions, { deadlineMs: 50 }))
  proxy.resume()
  await allowsNothing(permissions)
  await untilNear(permissions, false)
  await untilGranted(permissions)
})

test('a stream that is cut continues, and reports what was missed first', async () => {
  const permissions = await near()
  await untilNear(permissions)
  const { calls } = permissions.counts
  proxy.cut()
  // Nothing has changed, so the answer still holds once the stream continues.
  await pause(5)
  await untilNear(permissions)
  assert.ok(permissions.counts.calls - calls < 400, 'the answer was kept or asked for again')
  proxy.stall()
  proxy.cut()
  await revoke()
  await pause(300)
  proxy.resume()
  for (let count = 0; count < 200; count += 1) {
    const answer = await asks(permissions).catch(() => undefined)
    if (answer?.tier === 'NEAR') assert.equal(answer.allowed, false)
    await pause(2)
  }
  await untilNear(permissions, false)
  await untilGranted(permissions)
})

test('an invalidation of everything empties the cache', async () => {
  const permissions = await near()
  await untilNear(permissions)
  await server.permissions.invalidate({ all: true })
  await until('an answer of the server', async () => (await asks(permissions)).tier !== 'NEAR')
  await untilNear(permissions)
})

test('without the scope, and over documents on disk, no answer is kept', async () => {
  await assert.rejects(near({ token: CHECKING }), ScopeMissing)
  const [refused] = open
  assert.equal(await refused.can(ZOE, 'read', 'file', SHARED), true)
  const files = await serverOverFiles({ client: { near: { maxEntries: 10 } } })
  try {
    await files.permissions.ready()
    for (let count = 0; count < 5; count += 1) assert.equal(await files.permissions.can(BOB, 'read', 'file', SHARED), true)
    assert.equal(files.permissions.counts.nearHits, 0)
  } finally {
    await files.stop()
  }
})

test('options that are no near cache are refused', () => {
  for (const option of [true, {}, { maxEntries: 0 }, { maxEntries: 1.5 }, { maxEntries: '10' }, { maxEntries: 10, maxAge: 1 }, null]) {
    assert.throws(() => new Permcached({ target: proxy.address, near: option }), TypeError, JSON.stringify(option))
  }
})
