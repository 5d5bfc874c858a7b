/** Answers, as JavaScript objects. */

import { Reason as ReasonNumber, Tier as TierNumber, type Answer as AnswerMessage } from './gen/permcached/v1/core_pb.js'
import { dateOf, durationMs } from './time.js'

/** Why something is denied. `proto/permcached/v1/core.proto` of the project describes each. */
export type Reason =
  | 'SUBJECT_INACTIVE'
  | 'NOT_FOUND'
  | 'MALFORMED'
  | 'LIMIT'
  | 'EXCLUDED'
  | 'EXPIRED'
  | 'NO_GRANT'
  | 'CYCLE'
  /** The server is newer than this package. */
  | 'UNKNOWN'

/** The slowest tier that served a fact: the server's memory, Redis, or the database. NEAR: the answer was kept in this process. */
export type Tier = 'NEAR' | 'MEMORY' | 'REDIS' | 'SOURCE' | 'UNKNOWN'

/** The answer to a question. A denial is an answer. */
export interface Answer {
  /** Whether the subject has the permission. */
  readonly allowed: boolean
  /** Why it is denied. Undefined if it is allowed. */
  readonly reason?: Reason
  /** If allowed, a relation that grants it, as `type#relation`. Undefined if the permission only excludes. */
  readonly grantedBy?: string
  /** The slowest tier that served a fact for this answer. */
  readonly tier: Tier
  /** A token: a later check with `atLeastAsFresh` of it sees at least what this answer saw. */
  readonly asOf: string
  /** An upper bound of the age of the oldest fact behind this answer, in milliseconds. */
  readonly ageMs: number
  /** If time alone will end the permission: when. Do not keep the answer beyond. */
  readonly validUntil?: Date
  /** Whether the facts are older than the request allows, because the database cannot be read (`stale_if_error`). */
  readonly stale: boolean
}

const REASONS: Partial<Record<number, Reason>> = {
  [ReasonNumber.SUBJECT_INACTIVE]: 'SUBJECT_INACTIVE',
  [ReasonNumber.NOT_FOUND]: 'NOT_FOUND',
  [ReasonNumber.MALFORMED]: 'MALFORMED',
  [ReasonNumber.LIMIT]: 'LIMIT',
  [ReasonNumber.EXCLUDED]: 'EXCLUDED',
  [ReasonNumber.EXPIRED]: 'EXPIRED',
  [ReasonNumber.NO_GRANT]: 'NO_GRANT',
  [ReasonNumber.CYCLE]: 'CYCLE',
}

const TIERS: Partial<Record<number, Tier>> = {
  [TierNumber.MEMORY]: 'MEMORY',
  [TierNumber.REDIS]: 'REDIS',
  [TierNumber.SOURCE]: 'SOURCE',
}

/** The name of a reason, or undefined for none. */
export function reasonOf(reason: number): Reason | undefined {
  return reason === ReasonNumber.REASON_UNSPECIFIED ? undefined : (REASONS[reason] ?? 'UNKNOWN')
}

/** The name of a tier. */
export function tierOf(tier: number): Tier {
  return TIERS[tier] ?? 'UNKNOWN'
}

/** The answer that a message contains. */
export function answerOf(message: AnswerMessage): Answer {
  const answer: { -readonly [key in keyof Answer]: Answer[key] } = {
    allowed: message.allowed,
    tier: tierOf(message.tier),
    asOf: message.asOf,
    ageMs: durationMs(message.age),
    stale: message.stale,
  }
  if (!message.allowed) answer.reason = reasonOf(message.reason) ?? 'UNKNOWN'
  if (message.grantedBy !== '') answer.grantedBy = message.grantedBy
  if (message.validUntil !== undefined) answer.validUntil = dateOf(message.validUntil)
  return answer
}
