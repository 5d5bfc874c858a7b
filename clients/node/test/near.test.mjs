// The rules of the near cache, with a clock and a stream under control. docs/freshness.md, "Kept answers", numbers them.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'

const require = createRequire(import.meta.url)
const { Near } = require('../dist/near.js')

const DOMAIN = 7n
const BOUND_MS = 2_000
/** The date, where it does not matter. */
const DATE = Date.parse('2026-05-01T00:00:00Z')
const ALLOWED = { allowed: true, tier: 'SOURCE', asOf: 'c1', ageMs: 3, stale: false }

/** A stream that was opened at a time. */
const opened = (startedAt) => ({ startedAt, hasReported: false })

/** A response that confirms everything up to a moment, as of `ageMs` before it was made, at `elapsedMs` after the call. */
const confirmation = (moment, elapsedMs, ageMs = 0, changes = []) => ({
  changes,
  moment: BigInt(moment),
  domain: DOMAIN,
  confirms: { ageMs, elapsedMs, boundMs: BOUND_MS },
})
const change = (hash, moment) => ({ hash, moment: BigInt(moment) })
const everything = (moment) => change(undefined, moment)
const dependsOn = (moment, hashes = [1, 2], rest = {}) => ({ hashes, moment: BigInt(moment), domain: DOMAIN, ...rest })

/** A cache that keeps answers whose requests were sent after 100. Its stream was opened at 0, and has confirmed moment 10 at 100. */
function following(options = {}) {
  const near = new Near(options.maxEntries ?? 10, options.changesMax)
  // The stream before it, with which all began.
  near.report(opened(-2_000), confirmation(10, 100), -1_900)
  const stream = opened(0)
  near.report(stream, confirmation(10, 100), 100)
  return { near, stream }
}

test('an answer is kept and used while the stream confirms that it is right', () => {
  const { near, stream } = following()
  assert.equal(near.put('a', ALLOWED, dependsOn(10), 150), true)
  assert.equal(near.get('b', 200, DATE), undefined)
  const hit = near.get('a', 200, DATE)
  assert.deepEqual(hit, { ...ALLOWED, tier: 'NEAR', ageMs: 101 })
  hit.allowed = false
  assert.equal(near.get('a', 200, DATE).allowed, true)
  // Silence of the stream, although the state is not too old.
  assert.equal(near.get('a', 1_600, DATE).allowed, true)
  assert.equal(near.get('a', 1_601, DATE), undefined)
  near.report(stream, confirmation(12, 1_700), 1_700)
  assert.equal(near.get('a', 1_701, DATE).allowed, true)
})

test('the age of what a response confirms counts from when its call was sent', () => {
  for (const [elapsedMs, ageMs, arrived, lastsUntil] of [
    // A response that took no time, of a state that was 300 ms old.
    [1_000, 300, 1_000, 2_699],
    // The same response, held back by a frozen instance or a proxy.
    [1_000, 300, 2_600, 2_699],
    // The call itself arrived late: the server knows it for a shorter time.
    [400, 300, 1_000, 2_099.6],
  ]) {
    const near = new Near(10)
    const stream = opened(0)
    near.report(opened(-2_000), confirmation(10, 0), -2_000)
    near.report(stream, confirmation(10, 0, 0), 0)
    near.report(stream, confirmation(11, elapsedMs, ageMs), arrived)
    assert.equal(near.put('a', ALLOWED, dependsOn(11), arrived + 1), true)
    // Silence is not what ends it here.
    const end = Math.min(lastsUntil, arrived + 1_500)
    assert.ok(near.isConfirmed(end) && !near.isConfirmed(end + 0.5), `${elapsedMs} ${ageMs} ${arrived}`)
  }
  const { near, stream } = following()
  near.put('a', ALLOWED, dependsOn(10), 150)
  near.report(stream, confirmation(11, 200, 2_050), 2_400)
  assert.equal(near.get('a', 2_401, DATE), undefined, 'responses come, and what they confirm is too old')
})

test('two clocks may differ by a thousandth', () => {
  const near = new Near(10)
  near.report(opened(0), confirmation(10, 100_000), 100_000)
  assert.ok(near.isConfirmed(100_000 + 1_500))
  const late = new Near(10)
  late.report(opened(0), confirmation(10, 1_000_000), 1_000_000)
  assert.ok(late.isConfirmed(1_000_000 + 1_000) && !late.isConfirmed(1_000_000 + 1_001))
})

test('a clock that lacks time does not make a state fresher than the response that confirms it', () => {
  const near = new Near(10)
  // 65 s of the server's clock were 60 s of this one. The response is as of a second before it.
  near.report(opened(0), confirmation(10, 65_000, 1_000), 60_000)
  assert.ok(near.isConfirmed(60_900))
  assert.ok(!near.isConfirmed(61_000), 'confirmed beyond the bound')
})

test('a stream that begins anew may show a time that has gone back, so instances may answer from before it for as long as the bound', () => {
  const near = new Near(10)
  near.report(opened(0), confirmation(10, 100), 100)
  for (const [sentAt, isKept] of [
    [2_100, false],
    [2_101, true],
  ]) {
    assert.equal(near.isKeeping(sentAt), false, 'the last response came long ago')
    assert.equal(near.put('a', ALLOWED, dependsOn(1_000), sentAt), isKept)
  }
  near.report(opened(1_500), confirmation(10, 500), 2_000)
  assert.deepEqual([near.isKeeping(2_100), near.isKeeping(2_101)], [false, true])
  // Not a stream that continues.
  near.lost()
  near.report(opened(2_400), confirmation(11, 100), 2_500)
  assert.equal(near.put('b', ALLOWED, dependsOn(11), 2_501), true)
  // But one without a beginning, and one of another domain.
  near.forget()
  near.report(opened(3_000), confirmation(12, 100), 3_100)
  assert.deepEqual([near.put('a', ALLOWED, dependsOn(12), 5_100), near.put('a', ALLOWED, dependsOn(12), 5_101)], [false, true])
  const other = (moment, elapsedMs) => ({ ...confirmation(moment, elapsedMs), domain: 8n })
  near.report(opened(3_000), other(13, 2_000), 6_000)
  const depends = { ...dependsOn(13), domain: 8n }
  assert.deepEqual([near.put('a', ALLOWED, depends, 8_000), near.put('a', ALLOWED, depends, 8_001)], [false, true])
})

test('a stream that begins anew does not shorten how long a longer bound counts', () => {
  const { near, stream } = following()
  const long = confirmation(11, 200, 0, [everything(11)])
  near.report(stream, { ...long, confirms: { ...long.confirms, boundMs: 60_000 } }, 200)
  near.forget()
  near.report(opened(300), confirmation(12, 100), 400)
  assert.equal(near.put('a', ALLOWED, dependsOn(12), 60_200), false)
  assert.equal(near.put('a', ALLOWED, dependsOn(12), 60_201), true)
  // Nor how long an invalidation counts.
  const { near: next, stream: first } = following()
  next.report(first, { ...confirmation(11, 200), confirms: { ...long.confirms, boundMs: 60_000 } }, 200)
  next.report(first, { changes: [change(2, 9)], moment: 0n, domain: DOMAIN }, 200)
  next.forget()
  next.report(opened(300), confirmation(12, 100), 400)
  assert.equal(next.put('a', ALLOWED, dependsOn(12), 60_200), false)
})

test('a change drops what depends on it, and nothing else', () => {
  const { near, stream } = following()
  near.put('a', ALLOWED, dependsOn(10, [1, 2]), 150)
  near.put('b', ALLOWED, dependsOn(10, [2, 3]), 150)
  near.put('c', ALLOWED, dependsOn(10, [4]), 150)
  near.report(stream, confirmation(12, 200, 0, [change(2, 11)]), 200)
  assert.deepEqual(
    ['a', 'b', 'c'].map((key) => near.get(key, 201, DATE)?.allowed),
    [undefined, undefined, true],
  )
  assert.equal(near.size, 1)
})

test('a change of everything, a stream of another domain and a stream without a beginning drop everything', () => {
  for (const [what, happens] of [
    ['everything', ({ near, stream }) => near.report(stream, confirmation(12, 200, 0, [everything(11)]), 200)],
    ['domain', ({ near, stream }) => near.report(stream, { ...confirmation(12, 200), domain: 8n }, 200)],
    ['no domain', ({ near, stream }) => near.report(stream, { ...confirmation(12, 200), domain: 0n }, 200)],
    ['forgotten', ({ near }) => near.forget()],
  ]) {
    const both = following()
    both.near.put('a', ALLOWED, dependsOn(10), 150)
    happens(both)
    assert.equal(both.near.size, 0, what)
    assert.equal(both.near.get('a', 201, DATE), undefined, what)
  }
})

test('an answer is kept only if it shows every change of what it depends on', () => {
  const cases = [
    ['as of the beginning', dependsOn(10), 101, true],
    ['before the stream began', dependsOn(9), 101, false],
    ['sent less than the bound after the stream began', dependsOn(10), 100, false],
    ['of another domain', { ...dependsOn(10), domain: 8n }, 101, false],
    ['of no domain', { ...dependsOn(10), domain: 0n }, 101, false],
    ['of no dependencies', dependsOn(10, []), 101, false],
    ['without dependencies', undefined, 101, false],
  ]
  for (const [what, depends, sentAt, isKept] of cases) assert.equal(following().near.put('a', ALLOWED, depends, sentAt), isKept, what)
  // A change at 15 that arrived at 200.
  for (const [what, depends, sentAt, isKept] of [
    ['from an instance that has not applied the change', dependsOn(14), 201, false],
    ['from one that has', dependsOn(15), 201, true],
    ['sent before the change arrived', dependsOn(15), 200, false],
    ['that depends on something else', dependsOn(12, [4]), 150, true],
  ]) {
    const { near, stream } = following()
    near.report(stream, confirmation(12, 200, 0, [change(2, 15)]), 200)
    assert.equal(near.put('a', ALLOWED, depends, sentAt), isKept, what)
  }
})

test('changes that were too many to be remembered count for everything', () => {
  const { near, stream } = following({ changesMax: 2 })
  near.report(stream, confirmation(20, 200, 0, [change(5, 18), change(6, 12), change(7, 13)]), 200)
  assert.equal(near.put('a', ALLOWED, dependsOn(17), 201), false)
  assert.equal(near.put('a', ALLOWED, dependsOn(18), 200), false)
  assert.equal(near.put('a', ALLOWED, dependsOn(18), 201), true)
  // Also if they came before anything was confirmed.
  const late = new Near(10, 1)
  late.report(opened(0), confirmation(10, 100, 0, [change(5, 30), change(6, 12)]), 100)
  assert.equal(late.put('a', ALLOWED, dependsOn(29), 99_999), false)
})

test('after a change of everything, instances may answer from before it for as long as the bound', () => {
  const { near, stream } = following()
  near.report(stream, confirmation(5, 200, 0, [everything(5)]), 200)
  near.report(stream, confirmation(6, 2_100), 2_100)
  // The source's time has gone back: a moment of the time before is later.
  assert.equal(near.put('a', ALLOWED, dependsOn(1_000), 2_200), false)
  assert.equal(near.put('a', ALLOWED, dependsOn(4), 2_201), false)
  assert.equal(near.put('a', ALLOWED, dependsOn(5), 2_201), true)
})

test('an invalidation counts for as long as the bound, as instances may learn of it later', () => {
  const { near, stream } = following()
  near.put('a', ALLOWED, dependsOn(10), 150)
  near.report(stream, { changes: [change(2, 9)], moment: 0n, domain: DOMAIN }, 200)
  assert.equal(near.get('a', 201, DATE), undefined)
  assert.equal(near.put('a', ALLOWED, dependsOn(12), 2_200), false)
  assert.equal(near.put('a', ALLOWED, dependsOn(12), 2_201), true)
})

test('an invalidation of this process drops every answer, and keeps none for as long as the bound', () => {
  const { near, stream } = following()
  near.report(stream, confirmation(12, 120, 0, [change(2, 12)]), 120)
  near.put('a', ALLOWED, dependsOn(12), 150)
  near.invalidated(200)
  assert.equal(near.size, 0)
  assert.equal(near.get('a', 201, DATE), undefined)
  near.report(stream, confirmation(12, 2_000), 2_000)
  assert.deepEqual([near.isKeeping(2_200), near.isKeeping(2_201)], [false, true])
  assert.equal(near.put('a', ALLOWED, dependsOn(12), 2_200), false)
  assert.equal(near.put('a', ALLOWED, dependsOn(11), 2_201), false, 'a change that was reported before still counts')
  assert.equal(near.put('a', ALLOWED, dependsOn(9, [4]), 2_201), false, 'so does where the stream began')
  assert.equal(near.put('a', ALLOWED, dependsOn(12), 2_201), true)
  // Before a stream has begun, there is nothing to drop, and the time counts from its beginning.
  const early = new Near(10)
  early.invalidated(0)
  early.report(opened(0), confirmation(10, 100), 100)
  assert.equal(early.put('a', ALLOWED, dependsOn(10), 2_101), true)
})

test('an answer is dropped alone', () => {
  const { near } = following()
  near.put('a', ALLOWED, dependsOn(10), 150)
  near.put('b', ALLOWED, dependsOn(10), 150)
  near.drop('a')
  near.drop('c')
  assert.deepEqual([near.get('a', 160, DATE), near.get('b', 160, DATE).allowed, near.size], [undefined, true, 1])
})

test('an allow ends on its date, also if the clock of the server told another date when it answered', () => {
  const { near } = following()
  const validUntil = new Date('2026-05-01T12:00:00Z')
  const noon = validUntil.getTime()
  near.put('a', { ...ALLOWED, validUntil }, dependsOn(10, [1], { validForMs: 900_000 }), 150)
  const hit = near.get('a', 160, noon - 1)
  assert.deepEqual(hit.validUntil, validUntil)
  // Whatever callers do to their dates.
  hit.validUntil.setTime(noon + 1_000_000)
  validUntil.setTime(noon + 1_000_000)
  assert.equal(near.get('a', 160, noon - 1).validUntil.getTime(), noon)
  assert.equal(near.get('a', 161, noon), undefined)
  assert.equal(near.size, 0)
})

test('time ends an answer, counted from when its request was sent', () => {
  const { near, stream } = following()
  near.put('a', { ...ALLOWED, allowed: false, reason: 'EXPIRED' }, dependsOn(10, [1], { validForMs: 1_000 }), 150)
  near.report(stream, confirmation(11, 1_000), 1_000)
  assert.equal(near.get('a', 1_148, DATE).reason, 'EXPIRED')
  assert.equal(near.get('a', 1_149, DATE), undefined)
  assert.equal(near.size, 0)
})

test('no stream, no answers, until another one continues', () => {
  const { near } = following()
  near.put('a', ALLOWED, dependsOn(10), 150)
  near.lost()
  assert.equal(near.get('a', 160, DATE), undefined)
  assert.equal(near.put('b', ALLOWED, dependsOn(10), 161), false)
  const next = opened(300)
  near.report(next, { changes: [change(9, 11)], moment: 0n, domain: DOMAIN }, 320)
  assert.equal(near.get('a', 321, DATE), undefined, 'nothing is confirmed yet')
  near.report(next, confirmation(12, 30), 330)
  assert.equal(near.get('a', 331, DATE).allowed, true)
  near.lost()
  near.report(opened(400), confirmation(13, 10, 0, [change(1, 13)]), 410)
  assert.equal(near.get('a', 411, DATE), undefined, 'what was missed is reported first')
})

test('the answers that were not used for longest make room', () => {
  const { near } = following({ maxEntries: 2 })
  near.put('a', ALLOWED, dependsOn(10, [1]), 150)
  near.put('b', ALLOWED, dependsOn(10, [2]), 150)
  near.get('a', 160, DATE)
  near.put('c', ALLOWED, dependsOn(10, [3]), 150)
  assert.deepEqual(
    ['a', 'b', 'c'].map((key) => near.get(key, 161, DATE)?.allowed),
    [true, undefined, true],
  )
  near.put('c', { ...ALLOWED, allowed: false }, dependsOn(10, [4]), 151)
  assert.deepEqual([near.size, near.get('c', 161, DATE).allowed, near.get('a', 161, DATE).allowed], [2, false, true])
})
