/**
 * Permission checks from permcached: may this subject do this to that resource?
 *
 * @module permcached
 */

export { Permcached, type Counts, type NearOptions, type PermcachedOptions } from './client.js'
export type { CheckResult, DocumentId, Invalidated, Outdated, Permissions } from './permissions.js'
export type { Answer, Reason, Tier } from './answer.js'
export type { Id } from './id.js'
export { anonymous, subject } from './question.js'
export type { Anonymous, Question, QuestionText, Resource, Subject, TypedSubject } from './question.js'
export { momentOf } from './consistency.js'
export type { BsonTimestamp, CallOptions, CheckOptions, Freshness, Moment, WrittenSession } from './consistency.js'
export type { TlsOptions } from './connection.js'
export type { Explanation, Grant, Step, StepFact, StepKind, StepOutcome } from './explanation.js'
export type {
  Listed,
  ListOptions,
  PageOptions,
  Plan,
  PlanKind,
  PlanNote,
  PlanOptions,
  ResourcePage,
  SubjectPage,
  WhoOptions,
} from './lists.js'
export type { PluginOptions } from './mongoose/plugin.js'
export type { Change, Changes, WatchOptions } from './watch.js'
export {
  DeadlineExceeded,
  InvalidQuestion,
  NoAnswer,
  Overloaded,
  PermcachedError,
  ScopeMissing,
  TooLarge,
  Unauthenticated,
  Unavailable,
  type ErrorParts,
  type FieldViolation,
} from './errors.js'
export { createPermissionCache, type CacheQuestion, type PermissionCache, type PermissionCacheOptions } from './cache.js'
