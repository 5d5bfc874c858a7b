/**
 * Failures of calls, and of single questions of a batch: from gRPC statuses with their details to errors.
 *
 * Does not send anything.
 */

import { status as Code, type Metadata, type ServiceError } from '@grpc/grpc-js'
import { fromBinary } from '@bufbuild/protobuf'
import {
  DeadlineExceeded,
  InvalidQuestion,
  NoAnswer,
  Overloaded,
  type FieldViolation,
  PermcachedError,
  ScopeMissing,
  TooLarge,
  Unauthenticated,
  Unavailable,
} from './errors.js'
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from './gen/google/rpc/error_details_pb.js'
import { StatusSchema, type Status } from './gen/google/rpc/status_pb.js'
import { durationMs } from './time.js'
import type { QuestionText } from './question.js'

/** Why a call, or one question of a batch, has no answer. */
export interface Failure {
  /** The number of the gRPC status. */
  readonly code: number
  readonly message: string
  /** Fields that are wrong. */
  readonly fields: readonly FieldViolation[]
  /** When to retry. Without it, a retry of RESOURCE_EXHAUSTED does not help. */
  readonly retryAfterMs?: number
  /** A reason for programs, such as `NO_INDEX`. */
  readonly reason?: string
  /** Details of the reason, such as the `command` that creates a missing index. */
  readonly metadata?: Readonly<Record<string, string>>
}

const DETAILS = 'grpc-status-details-bin'

/** The failure that the status of a call describes. */
export function failureOfCall(error: ServiceError): Failure {
  const bytes = (error.metadata as Metadata | undefined)?.get(DETAILS)[0]
  if (bytes instanceof Uint8Array) {
    try {
      return { ...failureOfStatus(fromBinary(StatusSchema, bytes)), code: error.code, message: error.details }
    } catch {
      // The details only add to the status.
    }
  }
  return { code: error.code ?? Code.UNKNOWN, message: error.details ?? error.message, fields: [] }
}

/** The failure of one question of a batch. */
export function failureOfStatus(status: Status): Failure {
  const failure: { -readonly [key in keyof Failure]: Failure[key] } = { code: status.code, message: status.message, fields: [] }
  for (const detail of status.details) {
    switch (detail.typeUrl.slice(detail.typeUrl.lastIndexOf('/') + 1)) {
      case BadRequestSchema.typeName:
        failure.fields = fromBinary(BadRequestSchema, detail.value).fieldViolations.map((violation) => ({
          // In a batch: questions[3].resource.id.
          field: violation.field.replace(/^questions\[\d+\]\./, ''),
          description: violation.description,
        }))
        break
      case RetryInfoSchema.typeName:
        failure.retryAfterMs = durationMs(fromBinary(RetryInfoSchema, detail.value).retryDelay)
        break
      case ErrorInfoSchema.typeName:
        Object.assign(failure, infoOf(detail.value))
        break
    }
  }
  return failure
}

function infoOf(bytes: Uint8Array): { reason: string; metadata: Record<string, string> } {
  const { reason, metadata } = fromBinary(ErrorInfoSchema, bytes)
  return { reason, metadata }
}

/** Whether the same call may succeed if it is repeated. */
export function isTransient({ code, retryAfterMs }: Failure): boolean {
  return code === Code.UNAVAILABLE || (code === Code.RESOURCE_EXHAUSTED && retryAfterMs !== undefined)
}

/** Whether the request was too large, or what the server has to read for it. */
export function isTooLarge({ code, retryAfterMs }: Failure): boolean {
  return code === Code.OUT_OF_RANGE || (code === Code.RESOURCE_EXHAUSTED && retryAfterMs === undefined)
}

/** The error for a failure. */
export function errorOf(failure: Failure, question?: QuestionText): PermcachedError {
  const { code: number, retryAfterMs, fields, reason, metadata } = failure
  const code = Code[number] ?? `STATUS_${number}`
  const parts = { code, question, reason, metadata }
  const message = failure.message === '' ? code : failure.message
  switch (number) {
    case Code.INVALID_ARGUMENT:
      return new InvalidQuestion(message, { ...parts, fields })
    case Code.UNAUTHENTICATED:
      return new Unauthenticated(message, parts)
    case Code.PERMISSION_DENIED:
      return new ScopeMissing(message, parts)
    case Code.UNAVAILABLE:
      return new Unavailable(message, { ...parts, retryAfterMs })
    case Code.DEADLINE_EXCEEDED:
      return new DeadlineExceeded(message, parts)
    case Code.OUT_OF_RANGE:
      return new TooLarge(message, parts)
    case Code.RESOURCE_EXHAUSTED:
      return retryAfterMs === undefined ? new TooLarge(message, parts) : new Overloaded(message, { ...parts, retryAfterMs })
    case Code.UNIMPLEMENTED:
      return new NoAnswer(`the server does not have this call, it may be older than this package: ${message}`, parts)
    default:
      return new NoAnswer(message, parts)
  }
}
