// The codec of checks has the same messages as the generated code.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'

const require = createRequire(import.meta.url)
const { decodeBatch, decodeCheck, encodeBatch, encodeCheck, hashOf } = require('../dist/codec.js')
const { answerOf } = require('../dist/answer.js')
const { consistencyOf } = require('../dist/consistency.js')
const { questionMessage } = require('../dist/messages.js')
const generated = require('../dist/gen/permcached/v1/permission_service_pb.js')
const { StatusSchema } = require('../dist/gen/google/rpc/status_pb.js')

/** A pseudorandom sequence, the same in every run. */
let state = 42
const next = (below) => (state = (state * 48_271) % 2_147_483_647) % below
const pick = (values) => values[next(values.length)]

const texts = [
  '',
  'a',
  'user',
  'f11e00000000000000000002',
  'é',
  '€uro',
  '😀',
  '\0',
  '\ufeffmark',
  'x'.repeat(47),
  'x'.repeat(48),
  'ä'.repeat(63),
  'x'.repeat(127),
  'x'.repeat(128),
  'é'.repeat(512),
  '€'.repeat(341),
  'x'.repeat(1_024),
]
const consistencies = [
  undefined,
  { fullyConsistent: true },
  { maxAgeMs: 1.5 },
  { atLeastAsFresh: 'token'.repeat(40) },
  { atLeastAsFresh: { seconds: 4_000_000_000, increment: 4_294_967_295 } },
]

function question() {
  const [subjectType, subjectId, permission, resourceType, resourceId] = Array.from({ length: 5 }, () => pick(texts))
  if (next(5) === 0) return { subjectType: '', subjectId: '', anonymous: true, permission, resourceType, resourceId }
  return { subjectType, subjectId, anonymous: false, permission, resourceType, resourceId }
}

test('requests are those of the generated code', () => {
  for (let round = 0; round < 400; round += 1) {
    const consistency = consistencyOf(pick(consistencies))
    const questions = Array.from({ length: pick([1, 2, 3, 40]) }, question)
    const dependencies = next(2) === 0
    const batch = create(generated.BatchCheckRequestSchema, {
      dependencies,
      questions: questions.map(questionMessage),
      ...(consistency.message && { consistency: consistency.message }),
    })
    assert.deepEqual(
      fromBinary(generated.BatchCheckRequestSchema, encodeBatch(questions, consistency, dependencies)),
      fromBinary(generated.BatchCheckRequestSchema, toBinary(generated.BatchCheckRequestSchema, batch)),
    )
    const check = create(generated.CheckRequestSchema, {
      dependencies,
      ...questionMessage(questions[0]),
      ...(consistency.message && { consistency: consistency.message }),
    })
    assert.deepEqual(
      Buffer.from(encodeCheck(questions[0], consistency, dependencies)),
      Buffer.from(toBinary(generated.CheckRequestSchema, check)),
    )
  }
})

function answer() {
  return {
    ...{
      allowed: next(2) === 0,
      reason: pick([0, 1, 2, 7, 8, 99, 300]),
      grantedBy: pick(['', 'file#owner', 'folder#guest', 'é#ü', 'x'.repeat(200)]),
    },
    ...{ tier: pick([0, 1, 2, 3, 9]), asOf: pick(['', 'token-1', 'token-2', 'y'.repeat(150)]), stale: next(4) === 0 },
    age: pick([undefined, {}, { seconds: 3n, nanos: 1 }, { nanos: 999_999_999 }, { seconds: 86_400n }]),
    validUntil: pick([undefined, {}, { seconds: 4_102_444_800n, nanos: 123_456_789 }]),
    dependsOn: pick([undefined, undefined, dependsOn()]),
  }
}

const word = () => (BigInt(next(2 ** 31)) << 33n) | BigInt(next(2 ** 31))
function dependsOn() {
  return {
    ...{ hashes: Array.from({ length: pick([0, 1, 3, 64]) }, word), moment: word(), domain: word() },
    validFor: pick([undefined, {}, { seconds: 3n, nanos: 1_000_001 }]),
  }
}

/** The outcome for an answer that the generated code has read. */
function outcomeOf(answer) {
  if (answer.dependsOn === undefined) return { answer: answerOf(answer) }
  const { hashes, moment, domain, validFor } = answer.dependsOn
  const validForMs = validFor && Number(validFor.seconds) * 1_000 + Math.floor(validFor.nanos / 1e6)
  return {
    answer: answerOf(answer),
    dependsOn: { hashes: hashes.map(hashOf), moment, domain, ...(validFor === undefined ? {} : { validForMs }) },
  }
}

const status = () => ({
  code: pick([3, 14]),
  message: pick(texts),
  details: [{ typeUrl: 'type.googleapis.com/x', value: new Uint8Array([1, 2, 3]) }],
})

test('responses have the answers and errors of the generated code', () => {
  for (let round = 0; round < 400; round += 1) {
    const results = Array.from({ length: pick([0, 1, 2, 50]) }, () =>
      pick([
        () => ({}),
        () => ({ outcome: { case: 'answer', value: answer() } }),
        () => ({ outcome: { case: 'error', value: status() } }),
      ])(),
    )
    const bytes = toBinary(generated.BatchCheckResponseSchema, create(generated.BatchCheckResponseSchema, { results }))
    const expected = fromBinary(generated.BatchCheckResponseSchema, bytes).results.map(({ outcome }) => {
      if (outcome.case === 'answer') return outcomeOf(outcome.value)
      return outcome.case === 'error' ? { error: outcome.value } : undefined
    })
    assert.deepEqual(decodeBatch(Buffer.from(bytes)), expected)
    const one = toBinary(generated.CheckResponseSchema, create(generated.CheckResponseSchema, { answer: answer() }))
    assert.deepEqual(decodeCheck(Buffer.from(one)), outcomeOf(fromBinary(generated.CheckResponseSchema, one).answer))
  }
  assert.equal(decodeCheck(Buffer.alloc(0)), undefined)
})

test('fields of a newer server are skipped', () => {
  const newer = [0x78, 0x05, 0x7a, 0x02, 0x41, 0x42, 0x7d, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0xf8, 0xff, 0x01, 0x01]
  const inner = [0x08, 0x01, ...newer, 0x20, 0x01]
  const bytes = Buffer.from([...newer, 0x0a, inner.length, ...inner, ...newer])
  assert.equal(decodeCheck(bytes).answer.allowed, true)
  assert.equal(decodeCheck(bytes).answer.tier, 'MEMORY')
})

test('bytes that are no response throw, and never allow', () => {
  for (const bytes of [
    [0x0a],
    [0x0a, 0x05],
    [0x0a, 0x02, 0x08],
    [0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x08, 0x01],
    [0x0b],
    [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    [0x79, 1],
    [0x7d, 1],
  ]) {
    for (const decode of [decodeCheck, decodeBatch]) assert.throws(() => decode(Buffer.from(bytes)), RangeError, bytes.join(' '))
  }
  // An answer that is longer than its result, and would take its contents from the bytes that follow.
  assert.throws(() => decodeBatch(Buffer.from([0x0a, 0x02, 0x0a, 0x02, 0x08, 0x01])), RangeError)
  for (let round = 0; round < 2_000; round += 1) {
    const bytes = Buffer.from(Array.from({ length: next(30) }, () => next(256)))
    const outcome = (decode) => {
      try {
        return decode()
      } catch {
        return 'threw'
      }
    }
    const found = outcome(() => decodeBatch(bytes).map((each) => each?.answer?.allowed === true))
    const expected = outcome(() =>
      fromBinary(generated.BatchCheckResponseSchema, bytes).results.map(
        (each) => each.outcome.case === 'answer' && each.outcome.value.allowed,
      ),
    )
    // The generated code may accept what this code does not, but nothing else is allowed.
    if (found !== 'threw' && found.includes(true)) assert.deepEqual(found, expected)
  }
})
