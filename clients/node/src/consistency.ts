/**
 * How fresh an answer must be, and how long to wait for it.
 *
 * docs/freshness.md of the project describes what each choice costs.
 */

import type { MessageInitShape } from '@bufbuild/protobuf'
import type { ConsistencySchema, FreshnessSchema } from './gen/permcached/v1/core_pb.js'
import { durationOf } from './time.js'

/** A moment of MongoDB's cluster time: the halves of an `operationTime`. */
export interface Moment {
  /** Seconds since the Unix epoch (`t`). */
  readonly seconds: number
  /** The count within the second (`i`). */
  readonly increment: number
}

/** A Timestamp of `bson`, such as the `operationTime` of a session. */
export interface BsonTimestamp {
  getHighBits(): number
  getLowBits(): number
}

/** A session of MongoDB's driver or of mongoose, after a write. */
export interface WrittenSession {
  readonly operationTime?: BsonTimestamp | undefined
}

/** A moment that an answer has to reflect: a token (the `asOf` of an answer), the moment of a write, or the session that wrote. */
export type Freshness = string | Moment | BsonTimestamp | WrittenSession

/** How long a call may take. */
export interface CallOptions {
  /** Ends the call when it is aborted. The promise then rejects with the signal's reason. */
  signal?: AbortSignal | undefined
  /** How long the call may take, in milliseconds, with all waiting and retries. The client's `deadlineMs` if left out. */
  deadlineMs?: number | undefined
}

/** How fresh an answer must be, and how long to wait for it. At most one of the first three may be set. */
export interface CheckOptions extends CallOptions {
  /** The answer reflects everything up to this moment: that of your own write, or the `asOf` of an earlier answer. */
  atLeastAsFresh?: Freshness | undefined
  /** No fact behind the answer is older than this, in milliseconds. For less than the server's MAX_STALENESS. */
  maxAgeMs?: number | undefined
  /** The answer reflects every write acknowledged before the call. Asks the database each time. */
  fullyConsistent?: boolean | undefined
}

/** The requirement of a request. */
export interface Consistency {
  /** A text that only identical requirements have in common. */
  readonly key: string
  readonly message?: MessageInitShape<typeof ConsistencySchema>
}

/** What the server does unless asked otherwise. */
export const DEFAULT_CONSISTENCY: Consistency = { key: '' }

const OPTIONS = new Set(['atLeastAsFresh', 'maxAgeMs', 'fullyConsistent', 'signal', 'deadlineMs'])

/** The consistency that options ask for. Throws a TypeError for options that mean nothing, or contradict each other. */
export function consistencyOf(options: CheckOptions | undefined): Consistency {
  if (options === undefined) return DEFAULT_CONSISTENCY
  for (const name of Object.keys(options)) {
    if (!OPTIONS.has(name)) throw new TypeError(`there is no option ${name}: the options are ${[...OPTIONS].join(', ')}`)
  }
  const { atLeastAsFresh, maxAgeMs, fullyConsistent } = options
  const set = [atLeastAsFresh !== undefined, maxAgeMs !== undefined, fullyConsistent === true].filter(Boolean)
  if (set.length > 1) throw new TypeError('only one of atLeastAsFresh, maxAgeMs and fullyConsistent may be set')
  if (atLeastAsFresh !== undefined) {
    const freshness = freshnessOf(atLeastAsFresh)
    const { moment } = freshness
    const key = moment.case === 'token' ? `t${moment.value}` : `o${moment.value.seconds}:${moment.value.increment}`
    return { key, message: { requirement: { case: 'atLeastAsFresh', value: freshness } } }
  }
  if (maxAgeMs !== undefined) {
    if (typeof maxAgeMs !== 'number' || !(maxAgeMs > 0 && Number.isFinite(maxAgeMs))) {
      throw new TypeError('maxAgeMs must be a number of milliseconds above zero')
    }
    return { key: `m${maxAgeMs}`, message: { requirement: { case: 'maxAge', value: durationOf(maxAgeMs) } } }
  }
  if (fullyConsistent === true) return { key: 'f', message: { requirement: { case: 'fullyConsistent', value: true } } }
  if (fullyConsistent !== undefined && typeof fullyConsistent !== 'boolean') {
    throw new TypeError('fullyConsistent must be true or false')
  }
  return DEFAULT_CONSISTENCY
}

type FreshnessInit = MessageInitShape<typeof FreshnessSchema> & {
  moment: { case: 'token'; value: string } | { case: 'operationTime'; value: Moment }
}

/** The message for a moment. Throws a TypeError if the value is none. */
export function freshnessOf(value: unknown): FreshnessInit {
  if (typeof value === 'string' && value !== '') return { moment: { case: 'token', value } }
  return { moment: { case: 'operationTime', value: momentOf(value) } }
}

/**
 * The moment of a write, as two numbers that can be stored, for example with the user's session.
 * Takes a session of MongoDB's driver or of mongoose after its write, or its `operationTime`.
 */
export function momentOf(value: unknown): Moment {
  if (typeof value === 'object' && value !== null) {
    if ('getHighBits' in value && 'getLowBits' in value) {
      const { getHighBits, getLowBits } = value as unknown as BsonTimestamp
      return valid({ seconds: getHighBits.call(value) >>> 0, increment: getLowBits.call(value) >>> 0 })
    }
    if ('seconds' in value && 'increment' in value) {
      return valid({ seconds: value.seconds as number, increment: value.increment as number })
    }
    if ('operationTime' in value) {
      if (value.operationTime !== undefined && value.operationTime !== null) return momentOf(value.operationTime)
      throw new TypeError('the session has no operationTime: it has not written yet, or MongoDB is no replica set')
    }
  }
  throw new TypeError('a moment must be a token, an operationTime, { seconds, increment }, or a session after its write')
}

function valid(moment: Moment): Moment {
  const isHalf = (value: unknown) => Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32
  if (isHalf(moment.seconds) && isHalf(moment.increment)) return moment
  throw new TypeError('seconds and increment must be integers from 0 to 4294967295')
}

/** The longest time that a timer can wait. */
const TIMER_MAX_MS = 2 ** 31 - 1

/** The deadline of a call. Throws a TypeError if it is none. */
export function deadlineMsOf(deadlineMs: unknown): number {
  if (typeof deadlineMs === 'number' && deadlineMs > 0 && deadlineMs <= TIMER_MAX_MS) return deadlineMs
  throw new TypeError(`deadlineMs must be a number of milliseconds above zero, and at most ${TIMER_MAX_MS}`)
}
