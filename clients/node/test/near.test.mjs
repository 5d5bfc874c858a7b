// The rules of the near cache, with a clock and a stream under control. docs/freshness.md, "Kept answers", numbers them.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'

const require = createRequire(import.meta.url)
const { Near } = require('../dist/near.js')

const DOMAIN = 7n
const BOUND_MS = 2_000
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

/** A cache whose stream was opened at 0, and has confirmed moment 10 at 100. */
function following(options = {}) {
  const near = new Near(options.maxEntries ?? 10, options.changesMax)
  const stream = opened(0)
  near.report(stream, confirmation(10, 100), 100)
  return { near, stream }
}

test('an answer is kept and used while the stream confirms that it is right', () => {
  const { near, stream } = following()
  assert.equal(near.put('a', ALLOWED, dependsOn(10), 150), true)
  assert.equal(near.get('b', 200), undefined)
  const hit = near.get('a', 200)
  assert.deepEqual(hit, { ...ALLOWED, tier: 'NEAR', ageMs: 101 })
  hit.allowed = false
  assert.equal(near.get('a', 200).allowed, true)
  // Silence of the stream, although the state is not too old.
  assert.equal(near.get('a', 1_600).allowed, true)
  assert.equal(near.get('a', 1_601), undefined)
  near.report(stream, confirmation(12, 1_700), 1_700)
  assert.equal(near.get('a', 1_701).allowed, true)
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
  assert.equal(near.get('a', 2_401), undefined, 'responses come, and what they confirm is too old')
})

test('two clocks may differ by a thousandth', () => {
  const near = new Near(10)
  near.report(opened(0), confirmation(10, 100_000), 100_000)
  assert.ok(near.isConfirmed(100_000 + 1_500))
  const late = new Near(10)
  late.report(opened(0), confirmation(10, 1_000_000), 1_000_000)
  assert.ok(late.isConfirmed(1_000_000 + 1_000) && !late.isConfirmed(1_000_000 + 1_001))
})

test('a change drops what depends on it, and nothing else', () => {
  const { near, stream } = following()
  near.put('a', ALLOWED, dependsOn(10, [1, 2]), 150)
  near.put('b', ALLOWED, dependsOn(10, [2, 3]), 150)
  near.put('c', ALLOWED, dependsOn(10, [4]), 150)
  near.report(stream, confirmation(12, 200, 0, [change(2, 11)]), 200)
  assert.deepEqual(
    ['a', 'b', 'c'].map((key) => near.get(key, 201)?.allowed),
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
    assert.equal(both.near.get('a', 201), undefined, what)
  }
})

test('an answer is kept only if it shows every change of what it depends on', () => {
  const cases = [
    ['as of the beginning', dependsOn(10), 101, true],
    ['before the stream began', dependsOn(9), 101, false],
    ['sent before the stream began', dependsOn(10), 100, false],
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
  assert.equal(near.get('a', 201), undefined)
  assert.equal(near.put('a', ALLOWED, dependsOn(12), 2_200), false)
  assert.equal(near.put('a', ALLOWED, dependsOn(12), 2_201), true)
})

test('time ends an answer, counted from when its request was sent', () => {
  const { near, stream } = following()
  near.put('a', { ...ALLOWED, allowed: false, reason: 'EXPIRED' }, dependsOn(10, [1], { validForMs: 1_000 }), 150)
  near.report(stream, confirmation(11, 1_000), 1_000)
  assert.equal(near.get('a', 1_148).reason, 'EXPIRED')
  assert.equal(near.get('a', 1_149), undefined)
  assert.equal(near.size, 0)
})

test('no stream, no answers, until another one continues', () => {
  const { near } = following()
  near.put('a', ALLOWED, dependsOn(10), 150)
  near.lost()
  assert.equal(near.get('a', 160), undefined)
  assert.equal(near.put('b', ALLOWED, dependsOn(10), 161), false)
  const next = opened(300)
  near.report(next, { changes: [change(9, 11)], moment: 0n, domain: DOMAIN }, 320)
  assert.equal(near.get('a', 321), undefined, 'nothing is confirmed yet')
  near.report(next, confirmation(12, 30), 330)
  assert.equal(near.get('a', 331).allowed, true)
  near.lost()
  near.report(opened(400), confirmation(13, 10, 0, [change(1, 13)]), 410)
  assert.equal(near.get('a', 411), undefined, 'what was missed is reported first')
})

test('the answers that were not used for longest make room', () => {
  const { near } = following({ maxEntries: 2 })
  near.put('a', ALLOWED, dependsOn(10, [1]), 150)
  near.put('b', ALLOWED, dependsOn(10, [2]), 150)
  near.get('a', 160)
  near.put('c', ALLOWED, dependsOn(10, [3]), 150)
  assert.deepEqual(
    ['a', 'b', 'c'].map((key) => near.get(key, 161)?.allowed),
    [true, undefined, true],
  )
  near.put('c', { ...ALLOWED, allowed: false }, dependsOn(10, [4]), 151)
  assert.deepEqual([near.size, near.get('c', 161).allowed, near.get('a', 161).allowed], [2, false, true])
})
