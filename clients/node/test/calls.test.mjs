// Calls over a connection: retries, deadlines, signals, and the errors they end with.
import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { after, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import grpc from '@grpc/grpc-js'
import {
  DeadlineExceeded,
  InvalidQuestion,
  NoAnswer,
  Overloaded,
  Permcached,
  PermcachedError,
  ScopeMissing,
  subject,
  TooLarge,
  Unauthenticated,
  Unavailable,
} from 'permcached'
import { freePort } from './support/databases.mjs'
import { BadRequestSchema, detail, failure, retryInfo, scripted } from './support/scripted.mjs'

const { status } = grpc
const closing = []
after(async () => {
  for (const close of closing.reverse()) await close()
})

async function start(handlers = {}, options = {}) {
  const server = await scripted(handlers)
  const permissions = new Permcached({ target: server.target, defaultSubject: 'user', deadlineMs: 10_000, ...options })
  closing.push(server.stop, () => permissions.close())
  return { server, permissions }
}

const ask = (permissions, options) => permissions.can('a', 'read', 'file', 'x', options)

/** Fails with these errors one after the other, then answers. */
function failing(...errors) {
  return () => {
    if (errors.length > 0) throw errors.shift()
    return { answer: { allowed: true, tier: 1 } }
  }
}

test('transient failures are retried, four attempts in all, and no others', async () => {
  const unavailable = failure(status.UNAVAILABLE, 'gone')
  const busy = failure(status.RESOURCE_EXHAUSTED, 'busy', retryInfo(1))
  for (const [errors, attempts, expected] of [
    [[unavailable, busy, unavailable], 4, undefined],
    [[unavailable, unavailable, unavailable, unavailable], 4, Unavailable],
    [[busy, busy, busy, busy], 4, Overloaded],
    [[failure(status.RESOURCE_EXHAUSTED, 'more than 100,000 facts')], 1, TooLarge],
    [[failure(status.OUT_OF_RANGE, 'large')], 1, TooLarge],
    [[failure(status.UNAUTHENTICATED, 'who?')], 1, Unauthenticated],
    [[failure(status.PERMISSION_DENIED, 'scope')], 1, ScopeMissing],
    [[failure(status.INVALID_ARGUMENT, 'wrong')], 1, InvalidQuestion],
    [[failure(status.INTERNAL, 'broken')], 1, NoAnswer],
    [[failure(status.DEADLINE_EXCEEDED, 'late')], 1, DeadlineExceeded],
  ]) {
    const { server, permissions } = await start({ check: failing(...errors) })
    if (expected === undefined) assert.equal(await ask(permissions), true)
    else await assert.rejects(ask(permissions), (error) => error.constructor === expected)
    assert.equal(server.calls.length, attempts)
    assert.equal(permissions.counts.retries, attempts - 1)
  }
})

test('a retry waits as long as the server asks, and is left out if the deadline is earlier', async () => {
  const { server, permissions } = await start({ check: failing(failure(status.UNAVAILABLE, 'gone', retryInfo(150))) })
  const begin = performance.now()
  assert.equal(await ask(permissions), true)
  assert.ok(performance.now() - begin >= 145)
  server.handlers.check = failing(failure(status.RESOURCE_EXHAUSTED, 'busy', retryInfo(60_000)))
  server.calls.length = 0
  await assert.rejects(
    ask(permissions),
    (error) => error instanceof Overloaded && error.retryAfterMs === 60_000 && error.code === 'RESOURCE_EXHAUSTED',
  )
  assert.equal(server.calls.length, 1)
  server.handlers.check = failing(failure(status.UNAVAILABLE, 'gone', retryInfo(60_000)))
  await assert.rejects(ask(permissions), (error) => error instanceof Unavailable && error.retryAfterMs === 60_000)
})

test('an error names the fields and the question, but no secret', async () => {
  const violations = detail(BadRequestSchema, { fieldViolations: [{ field: 'resource.id', description: 'must be 24 hex digits' }] })
  const { permissions } = await start(
    { check: failing(failure(status.INVALID_ARGUMENT, 'resource.id: must be …', violations)) },
    { token: 'a-secret-token' },
  )
  const error = await permissions.can(subject('link', 'secret-link'), 'read', 'file', 'x').catch((each) => each)
  assert.ok(error instanceof InvalidQuestion && error instanceof PermcachedError && error instanceof Error)
  assert.equal(error.code, 'INVALID_ARGUMENT')
  assert.deepEqual(error.fields, [{ field: 'resource.id', description: 'must be 24 hex digits' }])
  assert.deepEqual(error.question, { subject: 'link:(hidden)', permission: 'read', resource: 'file:x' })
  const { inspect } = await import('node:util')
  assert.doesNotMatch(inspect(error, { depth: 9, showHidden: true }), /secret/)
})

test('an error of the default subject shows who it was', async () => {
  const { permissions } = await start({ check: failing(failure(status.INTERNAL, 'broken')) })
  await assert.rejects(ask(permissions), (error) => error.question.subject === 'user:a')
})

test('a call ends at its deadline: with a server that does not answer, accepts only, or does not exist', async () => {
  const silent = await start({ check: () => new Promise(() => {}) })
  const sockets = []
  const accepts = createServer((socket) => sockets.push(socket))
  await new Promise((done) => accepts.listen(0, '127.0.0.1', done))
  closing.push(() => {
    for (const socket of sockets) socket.destroy()
    accepts.close()
  })
  for (const target of [silent.server.target, `127.0.0.1:${accepts.address().port}`, `127.0.0.1:${await freePort()}`]) {
    const permissions = new Permcached({ target, deadlineMs: 300 })
    const begin = performance.now()
    await assert.rejects(
      ask(permissions),
      (error) => error instanceof DeadlineExceeded && error instanceof NoAnswer && error.code === 'DEADLINE_EXCEEDED',
    )
    const took = performance.now() - begin
    assert.ok(took >= 290 && took < 10_000, `${took} ms`)
    await permissions.close()
  }
})

test('the deadline is sent to the server, and is 250 ms by default', async () => {
  const { server, permissions } = await start({}, { deadlineMs: undefined })
  await permissions.ready()
  server.calls.length = 0
  const left = async (options) => {
    // On a busy machine the answer may be late, but the server has received the deadline.
    await ask(permissions, options).catch((error) => assert.ok(error instanceof DeadlineExceeded))
    const { deadline, at } = server.calls.at(-1)
    return deadline - at
  }
  assert.ok((await left()) <= 251)
  const longer = await left({ deadlineMs: 60_000 })
  assert.ok(longer > 10_000 && longer <= 60_001, `${longer}`)
})

test('an abort rejects with the reason of the signal, and ends the call', async () => {
  let cancelled
  const ended = new Promise((done) => (cancelled = done))
  const { server, permissions } = await start({
    check: (_request, { call }) => {
      call.on('cancelled', cancelled)
      return new Promise(() => {})
    },
  })
  const controller = new AbortController()
  const asking = ask(permissions, { signal: controller.signal })
  while (server.calls.length === 0) await pause(5)
  controller.abort(new Error('gave up'))
  await assert.rejects(asking, /gave up/)
  await ended
  await assert.rejects(ask(permissions, { signal: AbortSignal.abort() }), { name: 'AbortError' })
})

test('an abort ends the pause before a retry', async () => {
  const { permissions } = await start({ check: failing(failure(status.UNAVAILABLE, 'gone', retryInfo(9_000))) })
  await assert.rejects(ask(permissions, { signal: AbortSignal.timeout(200) }), { name: 'TimeoutError' })
})

test('a response without an answer is no answer', async () => {
  const { server, permissions } = await start({ check: () => ({}) })
  await assert.rejects(ask(permissions), NoAnswer)
  server.handlers.batchCheck = () => ({ results: [{ outcome: { case: 'answer', value: { allowed: true } } }] })
  const results = await permissions.checkAll(['x', 'y'].map((id) => ({ subject: 'a', permission: 'read', resource: { type: 'file', id } })))
  assert.equal(results[0].allowed, true)
  assert.ok(results[1].error instanceof NoAnswer)
})

test('a server without the call is named as the reason', async () => {
  const { permissions } = await start({ listPermissions: () => Promise.reject({ code: status.UNIMPLEMENTED, details: 'unknown method' }) })
  await assert.rejects(permissions.permissionsOf('a', 'file', 'x'), (error) => error instanceof NoAnswer && /older/.test(error.message))
})

test('ready connects, and rejects a token that is not accepted', async () => {
  const refusing = await start({ batchCheck: () => Promise.reject(failure(status.UNAUTHENTICATED, 'unknown token')) })
  await assert.rejects(refusing.permissions.ready(), Unauthenticated)
  const accepting = await start({ batchCheck: () => Promise.reject(failure(status.INVALID_ARGUMENT, 'questions: 1 to 10,000')) })
  await accepting.permissions.ready()
  const nobody = new Permcached({ target: `127.0.0.1:${await freePort()}` })
  await assert.rejects(nobody.ready({ deadlineMs: 300 }), DeadlineExceeded)
  await assert.rejects(nobody.ready({ signal: AbortSignal.timeout(100) }), { name: 'TimeoutError' })
  await nobody.close()
})

test('close waits for the calls that are open, and later calls are rejected', async () => {
  let release
  const { server, permissions } = await start({ check: () => new Promise((done) => (release = () => done({ answer: { allowed: true } }))) })
  const asking = ask(permissions)
  const closed = permissions.close()
  while (server.calls.length === 0) await pause(5)
  release()
  assert.equal(await asking, true)
  await closed
  await assert.rejects(ask(permissions), (error) => error instanceof NoAnswer && /closed/.test(error.message))
  await assert.rejects(permissions.ready(), /closed/)
  await permissions.close()
})
