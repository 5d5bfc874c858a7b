/**
 * Errors. Each explains why there is no answer. None of them is a denial: a denial is an answer.
 *
 * Does not decide what to retry.
 */

import type { QuestionText } from './question.js'

/** A field of a request that is wrong, and what is right. */
export interface FieldViolation {
  /** The path of the field, such as `resource.id`. */
  readonly field: string
  readonly description: string
}

/** The parts that every error may have. */
export interface ErrorParts {
  /** The name of the gRPC status, such as `UNAVAILABLE`. */
  code: string
  question?: QuestionText | undefined
  reason?: string | undefined
  metadata?: Readonly<Record<string, string>> | undefined
}

/** What all errors of this package have in common, apart from TypeErrors for wrong arguments. */
export class PermcachedError extends Error {
  override name = 'PermcachedError'
  /** The name of the gRPC status, such as `UNAVAILABLE`. */
  readonly code: string
  /** The question that has no answer. It has no secrets. */
  declare readonly question?: QuestionText
  /** A reason for programs, such as `NO_INDEX`, if the server gives one. */
  declare readonly reason?: string
  /** Details of the reason, such as the `command` that creates a missing index. */
  declare readonly metadata?: Readonly<Record<string, string>>

  constructor(message: string, parts: ErrorParts) {
    super(message)
    this.code = parts.code
    if (parts.question !== undefined) this.question = parts.question
    if (parts.reason !== undefined) this.reason = parts.reason
    if (parts.metadata !== undefined) this.metadata = parts.metadata
  }
}

/** The question is wrong: an id has the wrong form, or the schema has no such type or permission. */
export class InvalidQuestion extends PermcachedError {
  override name = 'InvalidQuestion'
  /** Every field that is wrong, 16 at most. */
  readonly fields: readonly FieldViolation[]

  constructor(message: string, parts: ErrorParts & { fields: readonly FieldViolation[] }) {
    super(message, parts)
    this.fields = parts.fields
  }
}

/** The server requires a token, and this client has none or an unknown one. */
export class Unauthenticated extends PermcachedError {
  override name = 'Unauthenticated'
}

/** The token lacks the scope that the call requires. It never means that a permission is denied. */
export class ScopeMissing extends PermcachedError {
  override name = 'ScopeMissing'
}

/** There is no answer: it is unknown whether the subject may. */
export class NoAnswer extends PermcachedError {
  override name = 'NoAnswer'
}

/** No server can be reached, or the server cannot read its database. */
export class Unavailable extends NoAnswer {
  override name = 'Unavailable'
  /** When to ask again, if the server has given a time. */
  declare readonly retryAfterMs?: number

  constructor(message: string, parts: ErrorParts & { retryAfterMs?: number | undefined }) {
    super(message, parts)
    if (parts.retryAfterMs !== undefined) this.retryAfterMs = parts.retryAfterMs
  }
}

/** The answer did not arrive before the deadline. */
export class DeadlineExceeded extends NoAnswer {
  override name = 'DeadlineExceeded'
}

/** The request, or what has to be read for it, is larger than the server allows. A retry does not help. */
export class TooLarge extends NoAnswer {
  override name = 'TooLarge'
}

/** The server has too many requests at once. */
export class Overloaded extends NoAnswer {
  override name = 'Overloaded'
  /** When to ask again. */
  readonly retryAfterMs: number

  constructor(message: string, parts: ErrorParts & { retryAfterMs: number }) {
    super(message, parts)
    this.retryAfterMs = parts.retryAfterMs
  }
}
