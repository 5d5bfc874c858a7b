/**
 * mongoose 7, 8 and 9: queries that find only what a subject may see.
 *
 * @module permcached/mongoose
 */

import type {} from 'mongoose'
import type { Subject } from './question.js'
import type { QueryOptions } from './mongoose/plugin.js'

export { type PluginOptions, type QueryOptions } from './mongoose/plugin.js'
export { FilterChanged, NotPermitted } from './mongoose/errors.js'

/** What the plugin adds to the queries of a schema, as its type of query helpers. */
export interface PermissionQueries {
  /** Restricts the query to documents that the subject may `read`. */
  readableBy<Q>(this: Q, subject: Subject, options?: QueryOptions): Q
  /** Restricts the query to documents on which the subject has the permission. */
  permittedFor<Q>(this: Q, subject: Subject, permission: string, options?: QueryOptions): Q
  /** Marks a query as unrestricted on purpose. `reason` is for those who read the code. */
  unscoped<Q>(this: Q, reason: string): Q
}

declare module 'mongoose' {
  // eslint-disable-next-line @typescript-eslint/no-unused-vars
  interface Aggregate<ResultType> {
    /** Restricts the pipeline to documents that the subject may `read`. */
    readableBy(subject: Subject, options?: QueryOptions): this
    /** Restricts the pipeline to documents on which the subject has the permission. */
    permittedFor(subject: Subject, permission: string, options?: QueryOptions): this
    /** Marks a pipeline as unrestricted on purpose. */
    unscoped(reason: string): this
  }
}
