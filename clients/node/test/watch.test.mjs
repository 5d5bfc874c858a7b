// Watching: the stream continues where it was, on whichever instance answers.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import grpc from '@grpc/grpc-js'
import { InvalidQuestion, NoAnswer, Permcached, ScopeMissing } from 'permcached'
import { failure, scripted } from './support/scripted.mjs'

const { status } = grpc
const closing = []
after(async () => {
  for (const close of closing.reverse()) await close()
})

async function start(watch) {
  const server = await scripted({ watch })
  const permissions = new Permcached({ target: server.target, deadlineMs: 10_000 })
  closing.push(server.stop, () => permissions.close())
  return permissions
}

const document = (id) => ({ what: { case: 'document', value: { collection: 'files', id } }, token: `of-${id}` })

/** Reads the next responses. */
async function take(watching, count) {
  const found = []
  for (let left = count; left > 0; left -= 1) found.push((await watching.next()).value)
  return found
}

test('changes have their kinds, and a response without changes has its token', async () => {
  const permissions = await start((_request, call) => {
    const changes = [
      document('1'),
      { what: { case: 'key', value: { collection: 'shares', field: 'file_id', id: '2' } }, token: 'k' },
      { what: { case: 'subject', value: { type: 'user', id: 'bob' } }, token: 's' },
      { what: { case: 'everything', value: true }, token: 'e' },
      // Of a newer server.
      { token: 'n' },
    ]
    call.write({ changes, token: 'one' })
    call.write({ changes: [] })
  })
  const watching = permissions.watch()
  assert.deepEqual(await take(watching, 2), [
    {
      changes: [
        { type: 'document', collection: 'files', id: '1', token: 'of-1' },
        { type: 'key', collection: 'shares', field: 'file_id', id: '2', token: 'k' },
        { type: 'subject', subjectType: 'user', subjectId: 'bob', token: 's' },
        { type: 'everything', token: 'e' },
        { type: 'everything', token: 'n' },
      ],
      token: 'one',
    },
    { changes: [] },
  ])
  await watching.return()
})

test('a stream that ends continues after its last token', async () => {
  const begins = []
  const permissions = await start((request, call) => {
    begins.push(request.since?.moment.value)
    call.write({ changes: [document(String(begins.length))], token: `token-${begins.length}` })
    if (begins.length === 1) call.end()
    if (begins.length === 2) call.emit('error', failure(status.UNAVAILABLE, 'stops'))
  })
  const watching = permissions.watch({ since: 'begin' })
  const ids = (await take(watching, 3)).flatMap(({ changes }) => changes.map(({ id }) => id))
  assert.deepEqual(ids, ['1', '2', '3'])
  assert.deepEqual(begins, ['begin', 'token-1', 'token-2'])
  await watching.return()
})

test('where no token shows what was missed, everything may have changed', async () => {
  let streams = 0
  const permissions = await start((_request, call) => {
    streams += 1
    // The first stream ends before it has a token.
    if (streams === 1) return call.end()
    call.write({ changes: [document('2')], token: 'two' })
  })
  const watching = permissions.watch()
  const [{ changes }] = await take(watching, 1)
  assert.deepEqual(
    changes.map(({ type }) => type),
    ['everything', 'document'],
  )
  await watching.return()
})

test('a silent stream is replaced, and a slow reader is not silence', async () => {
  let streams = 0
  const permissions = await start((_request, call) => {
    streams += 1
    call.write({ changes: [document(String(streams))], token: `token-${streams}` })
  })
  const watching = permissions.watch({ since: 'begin' })
  await take(watching, 1)
  await pause(6_000)
  assert.equal(streams, 1)
  const begin = performance.now()
  const [{ changes }] = await take(watching, 1)
  assert.equal(changes[0].id, '2')
  assert.ok(performance.now() - begin > 4_000)
  await watching.return()
})

test('an error that another stream would end with, too, is thrown', async () => {
  for (const [code, expected] of [
    [status.INVALID_ARGUMENT, InvalidQuestion],
    [status.PERMISSION_DENIED, ScopeMissing],
    [status.FAILED_PRECONDITION, NoAnswer],
  ]) {
    const permissions = await start((_request, call) => call.emit('error', failure(code, 'no')))
    await assert.rejects(permissions.watch().next(), expected)
  }
  const permissions = await start(() => {})
  await assert.rejects(permissions.watch({ since: {} }).next(), TypeError)
})

test('the signal ends the iteration, at any time', async () => {
  let isCancelled = false
  const permissions = await start((_request, call) => {
    call.on('cancelled', () => (isCancelled = true))
  })
  const controller = new AbortController()
  const waiting = permissions.watch({ signal: controller.signal }).next()
  await pause(100)
  controller.abort()
  assert.equal((await waiting).done, true)
  while (!isCancelled) await pause(5)
  assert.equal((await permissions.watch({ signal: AbortSignal.abort() }).next()).done, true)
  const failing = await start((_request, call) => call.emit('error', failure(status.UNAVAILABLE, 'gone')))
  assert.equal((await failing.watch({ signal: AbortSignal.timeout(300) }).next()).done, true)
})

test('leaving the loop ends the call', async () => {
  let isCancelled = false
  const permissions = await start((_request, call) => {
    call.on('cancelled', () => (isCancelled = true))
    call.write({ changes: [], token: 'one' })
  })
  for await (const { token } of permissions.watch()) {
    assert.equal(token, 'one')
    break
  }
  while (!isCancelled) await pause(5)
})
