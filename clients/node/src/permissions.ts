/** What can be asked: the interface of the client, which `fakePermissions` of `permcached/testing` has too. */

import type { Answer } from './answer.js'
import type { CallOptions, CheckOptions } from './consistency.js'
import type { PermcachedError } from './errors.js'
import type { Explanation } from './explanation.js'
import type { Id } from './id.js'
import type { ListOptions, Plan, PlanOptions, ResourcePage, SubjectPage, WhoOptions } from './lists.js'
import type { PluginOptions } from './mongoose/plugin.js'
import type { Question, Resource, Subject } from './question.js'
import type { Changes, WatchOptions } from './watch.js'

/** What became of one of several questions: an answer, or an error in its place. */
export type CheckResult = (Answer & { readonly error?: undefined }) | { readonly allowed?: undefined; readonly error: PermcachedError }

/** A document of the database. */
export interface DocumentId {
  readonly collection: string
  readonly id: Id
}

/** What is outdated: everything, or what is named. */
export interface Outdated {
  /** Every fact that is looked up by the id of one of these resources. */
  resources?: readonly Resource[] | undefined
  /** Every fact that a change of one of these documents would outdate. */
  documents?: readonly DocumentId[] | undefined
  /** Every fact, but only for questions about these subjects. */
  subjects?: readonly Subject[] | undefined
  /** Every fact. */
  all?: boolean | undefined
}

/** The result of an invalidation. */
export interface Invalidated {
  /** A token that covers every write acknowledged before the call. */
  readonly token: string
  /** Whether Redis accepted the notification for the other instances. False without Redis. */
  readonly published: boolean
}

/** Asks about permissions. */
export interface Permissions {
  /** The type of subjects that are given as a plain id. Empty if it is the schema's. */
  readonly defaultSubject: string
  /** Whether the subject has the permission. Rejects if there is no answer: never false for an error. */
  can(subject: Subject, permission: string, type: string, id: Id, options?: CheckOptions): Promise<boolean>
  /** The answer to one question, with its reason. */
  check(question: Question, options?: CheckOptions): Promise<Answer>
  /** The answers to several questions, in their order. A question without an answer has an error in its place. */
  checkAll(questions: readonly Question[], options?: CheckOptions): Promise<CheckResult[]>
  /**
   * The items that the subject has the permission on, in their order. `id` returns the id of an item's resource, `item._id`
   * if left out. Rejects if there is no answer for one of them.
   */
  filterAllowed<T>(
    subject: Subject,
    permission: string,
    type: string,
    items: Iterable<T>,
    id?: (item: T) => Id,
    options?: CheckOptions,
  ): Promise<T[]>
  /** A MongoDB query that finds the resources of the type on which the subject has the permission. */
  plan(subject: Subject, permission: string, type: string, options?: PlanOptions): Promise<Plan>
  /** The resources of the type on which the subject has the permission, page by page. Each was checked for this page. */
  list(subject: Subject, permission: string, type: string, options?: ListOptions): Promise<ResourcePage>
  /** The subjects that have the permission on the resource, page by page. Each was checked for this page. */
  who(permission: string, type: string, id: Id, options?: WhoOptions): Promise<SubjectPage>
  /** The answers for every permission of the resource's type, by the permission's name. */
  permissionsOf(subject: Subject, type: string, id: Id, options?: CheckOptions): Promise<Record<string, Answer>>
  /** The answer to one question, and each step of its evaluation. Requires a token with the scope admin. */
  explain(question: Question, options?: CheckOptions): Promise<Explanation>
  /** Makes the server read facts again, and drops the answers of the near cache, if there is one. Requires a token with the scope admin. */
  invalidate(outdated: Outdated, options?: CallOptions): Promise<Invalidated>
  /** The changes from a moment on. Continues on another instance when one stops. Requires a token with the scope watch. */
  watch(options?: WatchOptions): AsyncIterableIterator<Changes>
  /**
   * A plugin for schemas of mongoose: `schema.plugin(permissions.mongoose({ type: 'note' }))`. Its queries have `readableBy`,
   * `permittedFor` and `unscoped`; `permcached/mongoose` has their types.
   */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  mongoose(options: PluginOptions): (schema: any) => void
  /** Connects, and makes a first call. */
  ready(options?: CallOptions): Promise<void>
  /** Waits until every call has ended, and ends the connection. */
  close(): Promise<void>
}
