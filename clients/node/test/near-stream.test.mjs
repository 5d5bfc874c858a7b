// The stream that a near cache follows, against a server under control: how it continues, and when another one takes its place.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import grpc from '@grpc/grpc-js'
import { createPermissionCache, Permcached } from 'permcached'
import { until } from './support/databases.mjs'
import { failure, scripted } from './support/scripted.mjs'

const { status } = grpc
const DOMAIN = 7n
const closing = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

const duration = (ms) => ({ seconds: BigInt(Math.floor(ms / 1_000)), nanos: (ms % 1_000) * 1_000_000 })

/** A Watch stream, as the server sees it. */
class Stream {
  #call
  #arrived = Date.now()
  isCancelled = false

  constructor({ since }, call) {
    this.since = since?.moment.value
    this.#call = call
    call.on('cancelled', () => (this.isCancelled = true))
  }

  /** Confirms everything up to a moment, as if the server had known of the call for `elapsedMs`. */
  confirm(moment, { elapsedMs = Date.now() - this.#arrived, ...fields } = {}) {
    const times = { age: duration(0), elapsed: duration(elapsedMs), stalenessMax: duration(2_000) }
    this.#call.write({ token: `of-${moment}`, moment: BigInt(moment), domain: DOMAIN, ...times, ...fields })
  }

  fail(error) {
    this.#call.emit('error', error)
  }
}

/** A server that allows everything as of moment 10, and a client of it with a near cache. */
async function start() {
  const streams = []
  const dependsOn = { hashes: [1n, 2n], moment: 10n, domain: DOMAIN }
  const answer = { allowed: true, tier: 1, asOf: 'token', dependsOn }
  const server = await scripted({
    check: ({ dependencies }) => ({ answer: dependencies ? answer : { ...answer, dependsOn: undefined } }),
    watch: (request, call) => void streams.push(new Stream(request, call)),
  })
  const permissions = new Permcached({ target: server.target, deadlineMs: 5_000, near: { maxEntries: 10 } })
  closing.push(server.stop, () => permissions.close())
  const stream = (index) => until(`stream ${index}`, () => streams[index])
  const tier = async () => (await permissions.check({ subject: 'a', permission: 'read', resource: { type: 'file', id: 'x' } })).tier
  const isNear = async () => (await tier()) === 'NEAR'
  // From when a stream begins anew, no answer is kept for as long as the bound.
  const keeps = async (stream, moment) => {
    const confirmed = () => {
      stream.confirm(moment)
      return isNear()
    }
    await until('a kept answer', confirmed)
    // The last confirmation has arrived when a later call is answered.
    await permissions.can('a', 'read', 'file', 'other', { fullyConsistent: true })
  }
  void permissions.can('a', 'read', 'file', 'x')
  return { permissions, server, streams, stream, tier, isNear, keeps }
}

test('answers are kept from as long as the bound after the first confirmation on, and what they depend on is asked for only then', async () => {
  const { permissions, server, stream, tier, isNear, keeps } = await start()
  const first = await stream(0)
  assert.equal(first.since, undefined)
  assert.deepEqual([await tier(), await tier()], ['MEMORY', 'MEMORY'])
  first.confirm(10)
  await permissions.ready()
  assert.deepEqual([await tier(), await tier()], ['MEMORY', 'MEMORY'])
  assert.ok(server.calls.every(({ request }) => !request.dependencies))
  await keeps(first, 10)
  const asked = server.calls.length
  for (let count = 0; count < 50; count += 1) assert.equal(await tier(), 'NEAR')
  assert.equal(server.calls.length, asked)
  first.confirm(11, { changes: [{ what: { case: 'document', value: { collection: 'files', id: 'x' } }, hash: 2n, moment: 11n }] })
  await until('a dropped answer', async () => !(await isNear()))
})

test('a stream that ends, or is silent, continues where it was; kept answers wait for that', async () => {
  const { stream, streams, isNear, keeps } = await start()
  await keeps(await stream(0), 10)
  streams[0].fail(failure(status.UNAVAILABLE, 'the service stops'))
  const second = await stream(1)
  assert.equal(second.since, 'of-10')
  assert.equal(await isNear(), false)
  second.confirm(12)
  await until('a kept answer', isNear)
  // Now it is silent.
  const third = await stream(2)
  assert.equal(third.since, 'of-12')
  await until('the silent stream to be cancelled', () => second.isCancelled)
  assert.equal(await isNear(), false)
  third.confirm(13)
  await until('a kept answer', isNear)
})

test('without its moment a stream begins anew, and no kept answer is left', async () => {
  const { permissions, stream, streams, keeps } = await start()
  await keeps(await stream(0), 10)
  streams[0].fail(failure(status.UNAVAILABLE, 'gone'))
  ;(await stream(1)).fail(failure(status.INVALID_ARGUMENT, 'since: has not come yet'))
  const third = await stream(2)
  assert.equal(third.since, undefined)
  const { nearHits } = permissions.counts
  const began = performance.now()
  await keeps(third, 9)
  assert.ok(performance.now() - began >= 2_000, 'nothing is kept for as long as the bound')
  assert.equal(permissions.counts.nearHits, nearHits + 1, 'the first of these answers was asked for')
})

test('a stream whose call may have arrived late is opened again beside it', async () => {
  const { stream, streams, isNear, keeps } = await start()
  const first = await stream(0)
  await new Promise((done) => setTimeout(done, 400))
  // The server has known of the call for no time at all, so the confirmation may be as old as the call.
  first.confirm(10, { elapsedMs: 0 })
  const second = await stream(1)
  assert.equal(second.since, 'of-10')
  await keeps(first, 11)
  assert.ok(!first.isCancelled, 'the first one counts until the second one confirms something')
  second.confirm(12)
  await until('the first one to be cancelled', () => first.isCancelled)
  second.confirm(13)
  assert.equal(await isNear(), true)
  assert.equal(streams.length, 2)
})

test('a stream that begins anew ends the one beside it, as changes between the two are reported by neither', async () => {
  const { stream, isNear, keeps } = await start()
  const first = await stream(0)
  await new Promise((done) => setTimeout(done, 400))
  first.confirm(10, { elapsedMs: 0 })
  const second = await stream(1)
  await keeps(first, 11)
  second.fail(failure(status.INVALID_ARGUMENT, 'since: has not come yet'))
  const third = await stream(2)
  assert.equal(third.since, undefined)
  // Whatever the first one still reports confirms nothing.
  first.confirm(12)
  for (let count = 0; count < 50; count += 1) {
    assert.equal(await isNear(), false)
    await new Promise((done) => setTimeout(done, 2))
  }
  assert.ok(first.isCancelled)
  await keeps(third, 9)
})

test('a stream is opened again beside one whose time goes faster than that of the client', async () => {
  const { stream, streams } = await start()
  const first = await stream(0)
  first.confirm(10)
  first.confirm(11, { elapsedMs: 5_000 })
  const second = await until('a second stream', () => {
    first.confirm(11)
    return streams[1]
  })
  assert.equal(second.since, 'of-11')
  assert.ok(!first.isCancelled)
})

test('an invalidation of this process drops what is kept at once, and again once it has been answered', async () => {
  const { permissions, server, stream, tier, isNear, keeps } = await start()
  const first = await stream(0)
  const { invalidatePermission } = createPermissionCache(permissions, { onError: () => undefined })
  for (const [what, invalidate, answers] of [
    ['answered', () => permissions.invalidate({ subjects: ['a'] }), () => ({ token: 'c12', published: false })],
    ['the drop-in', () => invalidatePermission('x', 'file'), () => ({ token: 'c12', published: true })],
    ['refused', () => invalidatePermission('x', 'file'), () => Promise.reject(failure(status.DEADLINE_EXCEEDED, 'too late'))],
  ]) {
    await keeps(first, 10)
    let answer
    server.handlers.invalidate = () => new Promise((done) => (answer = () => done(answers())))
    const invalidated = invalidate()
    assert.equal(await isNear(), false, `${what}: at once`)
    await until('the invalidation to arrive', () => answer)
    await new Promise((done) => setTimeout(done, 300))
    answer()
    await invalidated
    const answered = performance.now()
    for (let count = 0; count < 5; count += 1) assert.equal(await tier(), 'MEMORY', what)
    await keeps(first, 10)
    assert.ok(performance.now() - answered >= 1_999, `${what}: nothing is kept for as long as the bound`)
  }
  // One that cannot be sent drops nothing.
  await assert.rejects(permissions.invalidate({ resources: [{ type: 'file', id: {} }] }))
  assert.equal(await isNear(), true)
})

test('an answer that was asked for with a consistency drops the kept one', async () => {
  const { permissions, server, stream, isNear, keeps } = await start()
  await keeps(await stream(0), 10)
  for (const ask of [
    (options) => permissions.can('a', 'read', 'file', 'x', options),
    (options) => permissions.filterAllowed('a', 'read', 'file', ['x', 'y'], (id) => id, options),
  ]) {
    for (const options of [{ atLeastAsFresh: 'of-10' }, { fullyConsistent: true }, { maxAgeMs: 500 }]) {
      await until('a kept answer', isNear)
      assert.equal(await permissions.can('a', 'read', 'file', 'z', options), true)
      assert.equal(await isNear(), true, 'an answer to another question')
      await ask(options)
      assert.equal(await isNear(), false, JSON.stringify(options))
    }
  }
  await until('a kept answer', isNear)
  server.handlers.check = () => Promise.reject(failure(status.UNAVAILABLE, 'down'))
  await assert.rejects(permissions.can('a', 'read', 'file', 'x', { fullyConsistent: true, deadlineMs: 50 }))
  assert.equal(await isNear(), true, 'an error says nothing of the answer')
})

test('of a server that confirms nothing no answer is kept', async () => {
  const { permissions, server, stream, tier } = await start()
  ;(await stream(0)).confirm(10, { age: undefined, elapsed: undefined, stalenessMax: undefined, domain: 0n, moment: 0n })
  await permissions.ready()
  for (let count = 0; count < 5; count += 1) assert.equal(await tier(), 'MEMORY')
  assert.ok(server.calls.every(({ request }) => !request.dependencies))
})
