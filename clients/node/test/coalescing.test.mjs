// Joined questions: how many calls they make, and that those who wait do not affect each other.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises'
import grpc from '@grpc/grpc-js'
import { DeadlineExceeded, InvalidQuestion, NoAnswer, Permcached, TooLarge, Unavailable } from 'permcached'
import { BadRequestSchema, detail, failure, scripted } from './support/scripted.mjs'

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

/** The outcome of a question in a batch: allowed if its resource's id is even. */
const evenOnly = ({ questions }) => ({
  results: questions.map(({ resource }) => ({
    outcome: { case: 'answer', value: { allowed: Number(resource.id) % 2 === 0, reason: 7, tier: 1 } },
  })),
})

const numbers = (count) => Array.from({ length: count }, (_, index) => index)

test('1,000 checks in one tick are one call', async () => {
  const { server, permissions } = await start({ batchCheck: evenOnly })
  const answers = await Promise.all(numbers(1_000).map((id) => permissions.can('a', 'read', 'file', String(id))))
  assert.deepEqual(
    answers,
    numbers(1_000).map((id) => id % 2 === 0),
  )
  assert.equal(server.calls.length, 1)
  assert.equal(server.calls[0].request.questions.length, 1_000)
  assert.deepEqual(permissions.counts, { questions: 1_000, calls: 1, retries: 0, nearHits: 0 })
})

test('more than 1,000 are sent in chunks', async () => {
  const { server, permissions } = await start({ batchCheck: evenOnly })
  const answers = await Promise.all(numbers(2_001).map((id) => permissions.can('a', 'read', 'file', String(id))))
  assert.deepEqual(
    answers,
    numbers(2_001).map((id) => id % 2 === 0),
  )
  assert.deepEqual(server.calls.map(({ method, request }) => request.questions?.length ?? method).sort(), [1_000, 1_000, 'check'])
})

test('questions of promise chains and of other callbacks in the same turn are joined, those of a later turn are not', async () => {
  const { server, permissions } = await start({ batchCheck: evenOnly })
  await permissions.ready()
  server.calls.length = 0
  const chain = async (id) => {
    await null
    await null
    return permissions.can('a', 'read', 'file', id)
  }
  const later = nextTurn()
    .then(() => nextTurn())
    .then(() => permissions.can('a', 'read', 'file', '4'))
  assert.deepEqual(await Promise.all([chain('1'), chain('2'), later]), [false, true, true])
  assert.deepEqual(
    server.calls.map(({ request }) => request.questions?.length ?? 1),
    [2, 1],
  )
})

test('questions of different callbacks in one turn are one call', async () => {
  const { server, permissions } = await start({ batchCheck: evenOnly })
  await permissions.ready()
  server.calls.length = 0
  // Both timers end in the same phase of the event loop, and microtasks run between their callbacks.
  const asked = ['2', '4'].map((id) => new Promise((done) => setTimeout(() => done(permissions.can('a', 'read', 'file', id)), 20)))
  const end = performance.now() + 30
  while (performance.now() < end);
  assert.deepEqual(await Promise.all(asked), [true, true])
  assert.equal(server.calls.length, 1)
})

test('identical questions are asked once, and others that only look alike are not', async () => {
  const { server, permissions } = await start({ batchCheck: evenOnly })
  const [first, second] = await Promise.all([
    permissions.check({ subject: 'a', permission: 'read', resource: { type: 'file', id: '2' } }),
    permissions.check({ subject: { type: 'user', id: 'a' }, permission: 'read', resource: { type: 'file', id: '2' } }),
    permissions.can('b', 'read', 'file', '2'),
  ])
  assert.deepEqual(first, second)
  assert.notEqual(first, second)
  assert.equal(server.calls[0].request.questions.length, 2)

  // The parts of these are the same text when joined.
  const alike = [
    ['a', 'b', 'c', 'd'],
    ['ab', '', 'c', 'd'],
    ['a', 'bc', '', 'd'],
    ['a', 'b', 'cd', ''],
    ['a1:b', '', 'c', 'd'],
    ['a', 'b1:c', '', 'd'],
  ]
  server.calls.length = 0
  server.handlers.batchCheck = ({ questions }) => ({
    results: questions.map(() => ({ outcome: { case: 'answer', value: { allowed: true } } })),
  })
  await Promise.all(alike.map(([who, permission, type, id]) => permissions.can(who, permission, type, id)))
  assert.equal(server.calls[0].request.questions.length, alike.length)
})

test('questions with different consistency are different calls', async () => {
  const { server, permissions } = await start()
  const requirements = [
    {},
    { fullyConsistent: true },
    { maxAgeMs: 10 },
    { maxAgeMs: 20 },
    { atLeastAsFresh: 'one' },
    { atLeastAsFresh: 'two' },
    { atLeastAsFresh: { seconds: 1, increment: 2 } },
  ]
  await Promise.all(requirements.flatMap((options) => ['1', '2'].map((id) => permissions.can('a', 'read', 'file', id, options))))
  assert.equal(server.calls.length, requirements.length)
  for (const { request } of server.calls) assert.equal(request.questions.length, 2)
})

test("one question's error is that waiter's alone", async () => {
  const details = [
    detail(BadRequestSchema, { fieldViolations: [{ field: 'questions[1].resource.id', description: 'must be 24 hex digits' }] }),
  ]
  const batchCheck = ({ questions }) => ({
    results: questions.map(({ resource }) => {
      if (resource.id === 'bad')
        return { outcome: { case: 'error', value: { code: status.INVALID_ARGUMENT, message: 'questions[1].resource.id', details } } }
      if (resource.id === 'down')
        return { outcome: { case: 'error', value: { code: status.UNAVAILABLE, message: 'no database', details: [] } } }
      return { outcome: { case: 'answer', value: { allowed: true } } }
    }),
  })
  const { permissions } = await start({ batchCheck })
  const [good, bad, again, down] = await Promise.allSettled(
    ['good', 'bad', 'bad', 'down'].map((id) => permissions.can('a', 'read', 'file', id)),
  )
  assert.equal(good.value, true)
  for (const each of [bad, again]) {
    assert.ok(each.reason instanceof InvalidQuestion)
    assert.deepEqual(
      each.reason.fields.map(({ field }) => field),
      ['resource.id'],
    )
    assert.equal(each.reason.question.resource, 'file:bad')
  }
  assert.ok(down.reason instanceof Unavailable)
})

test('a failed call is an error of each question, with its own text', async () => {
  const { permissions } = await start({ batchCheck: () => Promise.reject(failure(status.INTERNAL, 'broken')) })
  const results = await Promise.allSettled(['1', '2'].map((id) => permissions.can('a', 'read', 'file', id)))
  assert.deepEqual(
    results.map(({ reason }) => reason instanceof NoAnswer && reason.question.resource),
    ['file:1', 'file:2'],
  )
})

test('each waiter keeps its own deadline, also of the same question', async () => {
  let release
  const { server, permissions } = await start({
    batchCheck: () =>
      new Promise((done) => (release = () => done(evenOnly({ questions: [{ resource: { id: '2' } }, { resource: { id: '4' } }] })))),
  })
  const begin = performance.now()
  const short = permissions.can('a', 'read', 'file', '2', { deadlineMs: 150 })
  const long = [permissions.can('a', 'read', 'file', '2', { deadlineMs: 8_000 }), permissions.can('a', 'read', 'file', '4')]
  await assert.rejects(short, (error) => error instanceof DeadlineExceeded && error.question.resource === 'file:2')
  const took = performance.now() - begin
  assert.ok(took >= 140 && took < 7_000, `${took}`)
  release()
  assert.deepEqual(await Promise.all(long), [true, true])
  assert.equal(server.calls.length, 1)
})

test('each waiter keeps its own signal; the call ends when nobody waits any more', async () => {
  let isCancelled = false
  const { server, permissions } = await start({
    batchCheck: (_request, { call }) => {
      call.on('cancelled', () => (isCancelled = true))
      return new Promise(() => {})
    },
  })
  const [first, second] = [new AbortController(), new AbortController()]
  const asking = [
    permissions.can('a', 'read', 'file', '1', { signal: first.signal }),
    permissions.can('a', 'read', 'file', '1', { signal: second.signal }),
    permissions.can('a', 'read', 'file', '2', { signal: second.signal }),
  ]
  const settled = Promise.allSettled(asking)
  while (server.calls.length === 0) await pause(5)
  first.abort(new Error('first'))
  await assert.rejects(asking[0], /first/)
  await pause(50)
  assert.equal(isCancelled, false)
  second.abort(new Error('second'))
  assert.deepEqual(
    (await settled).map(({ reason }) => reason.message),
    ['first', 'second', 'second'],
  )
  while (!isCancelled) await pause(5)
})

test('a question whose only waiter left before the call is not sent', async () => {
  const { server, permissions } = await start({ batchCheck: evenOnly })
  const controller = new AbortController()
  const gone = permissions.can('a', 'read', 'file', '1', { signal: controller.signal })
  const others = [permissions.can('a', 'read', 'file', '2'), permissions.can('a', 'read', 'file', '4')]
  controller.abort(new Error('gone'))
  await assert.rejects(gone, /gone/)
  assert.deepEqual(await Promise.all(others), [true, true])
  assert.deepEqual(
    server.calls[0].request.questions.map(({ resource }) => resource.id),
    ['2', '4'],
  )
})

test('one signal for many questions makes no warning of a leak', async () => {
  const { permissions } = await start({ batchCheck: evenOnly })
  const warnings = []
  const listener = (warning) => warnings.push(warning)
  process.on('warning', listener)
  const { signal } = new AbortController()
  await permissions.checkAll(
    numbers(500).map((id) => ({ subject: 'a', permission: 'read', resource: { type: 'file', id: String(id) } })),
    { signal },
  )
  await nextTurn()
  process.off('warning', listener)
  assert.deepEqual(warnings, [])
})

test('questions that are too large together are asked in smaller calls', async () => {
  const batchCheck = (request) => {
    if (request.questions.length > 3 || request.questions.some(({ resource }) => resource.id === '7'))
      throw failure(status.RESOURCE_EXHAUSTED, 'more than 100,000 facts')
    return evenOnly(request)
  }
  const check = ({ resource }) => {
    if (resource.id === '7') throw failure(status.RESOURCE_EXHAUSTED, 'more than 100,000 facts')
    return { answer: { allowed: Number(resource.id) % 2 === 0, reason: 7 } }
  }
  const { permissions } = await start({ batchCheck, check })
  const results = await Promise.allSettled(numbers(10).map((id) => permissions.can('a', 'read', 'file', String(id))))
  results.forEach(({ value, reason }, id) => {
    if (id === 7) assert.ok(reason instanceof TooLarge)
    else assert.equal(value, id % 2 === 0)
  })
})

test('long ids do not make a call larger than the server accepts', async () => {
  const { server, permissions } = await start()
  const long = '€'.repeat(1_000)
  const results = await permissions.checkAll(
    numbers(1_000).map((id) => ({ subject: `${long}${id}`, permission: 'read', resource: { type: 'file', id: `${id}${long}` } })),
  )
  assert.ok(results.every(({ allowed }) => allowed))
  // None of them was refused, and sent again in parts.
  assert.equal(permissions.counts.calls, server.calls.length)
  assert.ok(server.calls.length > 1)
})

test('without coalescing each check is a call, and checkAll is one call', async () => {
  const { server, permissions } = await start({ batchCheck: evenOnly }, { coalesce: false })
  await Promise.all(numbers(5).map((id) => permissions.can('a', 'read', 'file', String(id))))
  assert.deepEqual(
    server.calls.map(({ method }) => method),
    Array(5).fill('check'),
  )
  server.calls.length = 0
  const results = await permissions.checkAll(
    numbers(5).map((id) => ({ subject: 'a', permission: 'read', resource: { type: 'file', id: String(id) } })),
  )
  assert.deepEqual(
    results.map(({ allowed }) => allowed),
    [true, false, true, false, true],
  )
  assert.deepEqual(
    server.calls.map(({ method }) => method),
    ['batchCheck'],
  )
})
