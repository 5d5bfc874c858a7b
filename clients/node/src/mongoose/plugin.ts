/**
 * The plugin: a query is restricted when it runs, by a query of the server that is combined with its own.
 *
 * Restricts queries and aggregations of the model. Does not restrict `populate`, `bulkWrite`, the driver's own collection, and
 * stages of an aggregation that read other collections.
 */

import { TooLarge } from '../errors.js'
import type { Id } from '../id.js'
import type { PlanOptions } from '../lists.js'
import type { Permissions } from '../permissions.js'
import type { Question, Subject } from '../question.js'
import { FilterChanged, NotPermitted } from './errors.js'
import type { MongooseAggregate, MongooseModel, MongooseQuery } from './internals.js'
import { refuseUpsert, restricted, sendingTo } from './sending.js'

/** What the plugin knows about a schema. */
export interface PluginOptions {
  /** The resource's type in the schema of permcached. */
  type: string
  /** The id of a document's resource. Its `_id` if left out. Used to check what a query finds where the server requires that. */
  id?: ((document: { _id: unknown }) => Id) | undefined
  /** Whether a query without `readableBy`, `permittedFor` or `unscoped` throws. */
  strict?: boolean | undefined
  /** Permits a collation other than simple in queries whose restriction compares texts: it may find more than a check allows. */
  allowCollation?: boolean | undefined
  /** Permits reading from secondaries, which may lag behind the permissions. */
  allowSecondaryReads?: boolean | undefined
}

/** How fresh the permissions have to be, and how many ids the restriction may have. */
export type QueryOptions = Omit<PlanOptions, 'referenceField'>

/** Whose permission restricts a query. */
interface Restriction {
  readonly subject: Subject
  readonly permission: string
  readonly options: QueryOptions | undefined
}

/** The most documents that are checked one by one for a query that finds at least what is allowed. */
const CANDIDATES_MAX = 10_000

/** Options of a query that the query for candidates has, too. */
const CANDIDATE_OPTIONS = ['sort', 'collation', 'session', 'hint', 'maxTimeMS', 'readPreference']

/** Those with which mongoose changes conditions when it sends them. */
const OPTIONS_OF_CONDITIONS = ['strictQuery', 'sanitizeFilter']

/** How many of them are checked in one call. */
const CHECKED_AT_ONCE = 1_000

/** Query operations whose results, or effects, are those of one document. */
const SINGLE = new Set([
  'findOne',
  'findOneAndUpdate',
  'findOneAndDelete',
  'findOneAndReplace',
  'findOneAndRemove',
  'updateOne',
  'deleteOne',
  'replaceOne',
])

const OPERATIONS = [
  ...[
    'find',
    'findOne',
    'count',
    'countDocuments',
    'estimatedDocumentCount',
    'distinct',
    'updateOne',
    'updateMany',
    'deleteOne',
    'deleteMany',
  ],
  ...['replaceOne', 'findOneAndUpdate', 'findOneAndDelete', 'findOneAndReplace', 'findOneAndRemove'],
]

/** Operations that write. */
const WRITES = /^(update|delete|replace|findOneAnd)/

/** Stages that must be the first one, so that no restriction can precede them. */
const FIRST_STAGES = new Set([
  '$geoNear',
  '$search',
  '$searchMeta',
  '$vectorSearch',
  '$collStats',
  '$indexStats',
  '$changeStream',
  '$documents',
  '$listSessions',
])

/** How a query is marked. */
type Mark =
  | Restricted
  // A query of the plugin itself, for what is to be checked: restricted already.
  | { isOwn: true }
  | { reason: string }

interface Restricted {
  readonly restriction: Restriction
  /** The model as the application knows it. */
  readonly model: MongooseModel
  /** What has to be sent with the query, for each plugin of the schema. Empty until their hooks have asked. */
  readonly filters: Map<Plugin, object>
  /** Whether they contain the ids of one page. */
  isPage: boolean
  /** Why it could not be asked. */
  error?: unknown
  wasSent: boolean
}

const MARKS = new WeakMap<object, Mark>()

/** Every plugin that was made, so that an aggregation of a model without one is refused. */
const PLUGINS = new WeakSet<object>()

/** A plugin for schemas, which asks these permissions. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function permissionsPlugin(permissions: Permissions, options: PluginOptions): (schema: any) => void {
  if (typeof options?.type !== 'string') throw new TypeError('mongoose takes { type }, the type of the resource')
  const plugin = new Plugin(permissions, options)
  const install = (schema: unknown) => plugin.install(schema as PluggedSchema)
  PLUGINS.add(install)
  return install
}

interface PluggedSchema {
  query: Record<string, unknown>
  on(event: 'init', listener: (model: MongooseModel) => void): void
  pre(names: string | string[], options: object, hook: (this: never) => Promise<void>): void
  pre(names: string, hook: (this: never) => Promise<void>): void
  post(names: string | string[], options: object, hook: (this: never) => void): void
  post(names: string, hook: (this: never) => void): void
}

class Plugin {
  readonly #permissions: Permissions
  readonly #options: PluginOptions

  constructor(permissions: Permissions, options: PluginOptions) {
    this.#permissions = permissions
    this.#options = options
  }

  install(schema: PluggedSchema): void {
    // eslint-disable-next-line @typescript-eslint/no-this-alias
    const plugin = this
    Object.assign(schema.query, METHODS)
    schema.on('init', ({ base }) => {
      refuseAsFilter(base.Query.prototype)
      // Aggregations have no helpers of a schema.
      for (const [name, value] of Object.entries(METHODS)) {
        if (!(name in base.Aggregate.prototype))
          Object.defineProperty(base.Aggregate.prototype, name, { value, configurable: true, writable: true })
      }
    })
    const onQueries = { query: true, document: false }
    schema.pre(OPERATIONS, onQueries, function (this: MongooseQuery) {
      return plugin.#beforeQuery(this)
    })
    schema.post(OPERATIONS, onQueries, function (this: MongooseQuery) {
      const found = MARKS.get(this)
      if (found !== undefined && 'restriction' in found && !found.wasSent) throw unrestricted(this.op)
    })
    schema.pre('aggregate', async function (this: MongooseAggregate) {
      const found = MARKS.get(this)
      try {
        await plugin.#beforeAggregate(this)
      } catch (error) {
        if (found !== undefined && 'restriction' in found) found.error = error
        // mongoose 7 ignores the errors of hooks of a cursor. mongod does not know such a stage.
        else if ('cursor' in this.options) this.pipeline().unshift({ [`$refused: ${String(error)}`]: 1 })
        throw error
      }
    })
    schema.post('aggregate', function (this: MongooseAggregate) {
      const found = MARKS.get(this)
      if (found !== undefined && 'restriction' in found && !found.wasSent) throw unrestricted('aggregate')
    })
  }

  async #beforeQuery(query: MongooseQuery): Promise<void> {
    const found = MARKS.get(query)
    if (found === undefined) {
      if (this.#options.strict === true) throw missing(`${query.model.modelName}.${query.op}`)
      return
    }
    if (!('restriction' in found) || found.filters.has(this)) return
    const { op = '' } = query
    if (op === 'estimatedDocumentCount') throw new NotPermitted('estimatedDocumentCount cannot be restricted: use countDocuments')
    const options = query.getOptions()
    refuseUpsert(options)
    const isPage = SINGLE.has(op) || Boolean(options['limit']) || Boolean(options['skip'])
    if (found.isPage) throw new NotPermitted('two plugins of one model cannot restrict a page of what one of them has to check')
    const filter = await this.#filter(found.model, found.restriction, options, WRITES.test(op))
    const own = filter.isSuperset ? ownConditions(query, found.model) : undefined
    const ids = own === undefined ? undefined : await this.#checked(found, filter.value, own.filter, { ...options, ...own.options }, op)
    const restriction = ids === undefined ? filter.value : { $and: [filter.value, { _id: { $in: ids } }] }
    // These are the documents that come after the skipped ones.
    if (ids !== undefined && options['skip'] !== undefined) query.skip(0)
    found.filters.set(this, restriction)
    found.isPage = ids !== undefined && isPage
  }

  async #beforeAggregate(aggregate: MongooseAggregate): Promise<void> {
    const found = MARKS.get(aggregate)
    const { _model: model } = aggregate
    if (model === undefined) return
    if (found === undefined) {
      if (this.#options.strict === true) throw missing(`${model.modelName}.aggregate`)
      return
    }
    if (!('restriction' in found) || found.filters.has(this)) return
    const pipeline = aggregate.pipeline()
    const first = Object.keys(pipeline[0] ?? {})[0] ?? ''
    if (FIRST_STAGES.has(first)) throw new NotPermitted(`a pipeline that begins with ${first} cannot be restricted`)
    const filter = await this.#filter(found.model, found.restriction, aggregate.options, false)
    const ids = filter.isSuperset ? await this.#checked(found, filter.value, leading(pipeline), aggregate.options, 'aggregate') : undefined
    // mongoose sends no empty pipeline.
    if (pipeline.length === 0) pipeline.push({ $match: {} })
    found.filters.set(this, ids === undefined ? filter.value : { $and: [filter.value, { _id: { $in: ids } }] })
  }

  /** The query that finds what is allowed, or at least that. */
  async #filter(model: MongooseModel, { subject, permission, options }: Restriction, own: Record<string, unknown>, isWrite: boolean) {
    const plan = await this.#permissions.plan(subject, permission, this.#options.type, options)
    const { BSON } = model.base.mongo
    if (BSON === undefined) throw new NotPermitted('this version of mongoose has no BSON.EJSON: use mongoose 7 or newer')
    const value = BSON.EJSON.parse(plan.filter, { relaxed: false })
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
    if (!isObject || (Object.keys(value).length === 0 && plan.kind !== 'ALL')) throw new FilterChanged('the server sent no restriction')
    this.#refuse(model, own, value, isWrite)
    return { value, isSuperset: plan.kind === 'SUPERSET' }
  }

  /** Refuses what would make the same query find more in another way. */
  #refuse(model: MongooseModel, own: Record<string, unknown>, filter: object, isWrite: boolean): void {
    const { allowCollation, allowSecondaryReads } = this.#options
    const collation = (own['collation'] ?? model.schema.options['collation']) as { locale?: unknown } | undefined
    if (allowCollation !== true && collation !== undefined && collation.locale !== 'simple' && hasText(filter)) {
      throw new NotPermitted('this query has a collation, and its restriction compares texts: set allowCollation if that is right')
    }
    const preference = own['readPreference'] ?? model.schema.options['read'] ?? clientPreference(model)
    // A write looks for its documents on the primary.
    if (!isWrite && allowSecondaryReads !== true && preference !== undefined && modeOf(preference) !== 'primary') {
      throw new NotPermitted(
        'this query may read from a secondary, which may lag behind the permissions: set allowSecondaryReads if that is right',
      )
    }
  }

  /** The ids of the documents that a query finds and a check allows, as many as the query asks for. */
  async #checked(
    { model, restriction, filters }: Restricted,
    filter: object,
    own: object,
    options: Record<string, unknown>,
    op: string,
  ): Promise<unknown[]> {
    const limit = SINGLE.has(op) ? 1 : ['find', 'count', 'countDocuments'].includes(op) ? Number(options['limit'] ?? 0) : 0
    const skip = SINGLE.has(op) || op !== 'distinct' ? Number(options['skip'] ?? 0) : 0
    const wanted = limit === 0 ? Infinity : skip + Math.abs(limit)
    const kept = [...CANDIDATE_OPTIONS, ...OPTIONS_OF_CONDITIONS].filter((name) => options[name] !== undefined)
    const all = [...filters.values(), filter]
    const query = model.find(own)
    query.setOptions(Object.fromEntries(kept.map((name) => [name, options[name]])))
    mark(query, { isOwn: true })
    // It is a cursor, which sends by the model.
    query.model = sendingTo(
      model,
      restricted(model.collection, () => ({ $and: all })),
    )
    const candidates = query.select(this.#options.id === undefined ? { _id: 1 } : {}).lean()
    const allowed: unknown[] = []
    let batch: { _id: unknown }[] = []
    let seen = 0
    const size = Math.min(CHECKED_AT_ONCE, wanted === Infinity ? CHECKED_AT_ONCE : Math.max(20, wanted))
    const check = async () => {
      allowed.push(...(await this.#allowed(restriction, batch)))
      batch = []
    }
    for await (const document of candidates.cursor({ batchSize: size })) {
      seen += 1
      if (seen > CANDIDATES_MAX) {
        throw new TooLarge(
          `more than ${CANDIDATES_MAX} documents would have to be checked one by one: use limit, or narrow the query down`,
          {
            code: 'RESOURCE_EXHAUSTED',
          },
        )
      }
      batch.push(document as { _id: unknown })
      if (batch.length >= size) await check()
      if (allowed.length >= wanted) break
    }
    if (allowed.length < wanted && batch.length > 0) await check()
    return allowed.slice(skip, wanted)
  }

  async #allowed({ subject, permission, options }: Restriction, documents: { _id: unknown }[]): Promise<unknown[]> {
    const { type, id = ({ _id }) => _id as Id } = this.#options
    const questions = documents.map((document): Question => ({ subject, permission, resource: { type, id: id(document) } }))
    const { maxIds: _, ...check } = options ?? {}
    const results = await this.#permissions.checkAll(questions, check)
    const error = results.find((result) => result.error !== undefined)?.error
    if (error !== undefined) throw error
    return documents.filter((_document, index) => results[index]?.allowed === true).map(({ _id }) => _id)
  }
}

/** What queries and aggregations have. */
const METHODS = {
  readableBy(this: object, subject: Subject, options?: QueryOptions) {
    return restrict(this, { subject, permission: 'read', options })
  },
  permittedFor(this: object, subject: Subject, permission: string, options?: QueryOptions) {
    return restrict(this, { subject, permission, options })
  },
  unscoped(this: object, reason: string) {
    if (typeof reason !== 'string' || reason === '') throw new TypeError('unscoped takes the reason why the query is not restricted')
    mark(this, { reason })
    return this
  },
}

function restrict<Q extends object>(query: Q, restriction: Restriction): Q {
  if (typeof restriction.permission !== 'string') throw new TypeError('permittedFor takes a subject and a permission')
  // Until the restriction is known, nothing can be sent: not even if the hooks of the schema are skipped.
  if ('mongooseCollection' in query) restrictQuery(query as unknown as MongooseQuery, restriction)
  else restrictAggregate(query as unknown as MongooseAggregate, restriction)
  return query
}

function restrictQuery(query: MongooseQuery, restriction: Restriction): void {
  const { model } = query
  const found: Restricted = { restriction, model, filters: new Map(), isPage: false, wasSent: false }
  mark(query, found)
  const collection = restricted(model.collection, () => toSend(found))
  query.mongooseCollection = collection
  if (query._collection !== undefined) {
    query._collection = Object.create(query._collection, {
      collection: { value: collection, writable: true, configurable: true },
    }) as object
  }
  const { clone, cursor } = query
  query.clone = function () {
    const copy = clone.call(this)
    copy.model = model
    restrictQuery(copy, restriction)
    return copy
  }
  query.toConstructor = () => {
    throw new NotPermitted('toConstructor would lose the restriction: call readableBy on each query')
  }
  query.cursor = function (options?: object) {
    const { middleware } = { ...this.getOptions(), ...options } as { middleware?: unknown }
    if (middleware !== undefined && middleware !== true) throw new NotPermitted('a query whose hooks are skipped cannot be restricted')
    // A cursor does not send by the collection of the query.
    this.model = sendingTo(model, collection)
    return cursor.call(this, options)
  }
}

function restrictAggregate(aggregate: MongooseAggregate, restriction: Restriction): void {
  const { _model: model } = aggregate
  if (model?.schema.plugins?.some(({ fn }) => PLUGINS.has(fn)) !== true)
    throw new NotPermitted('the schema of this aggregation has no plugin of permcached')
  const found: Restricted = { restriction, model, filters: new Map(), isPage: false, wasSent: false }
  mark(aggregate, found)
  aggregate._model = sendingTo(
    model,
    restricted(model.collection, () => toSend(found)),
  )
  aggregate.model = (...other: unknown[]) => {
    if (other.length > 0) throw new NotPermitted('the model of a restricted aggregation cannot be replaced')
    return model
  }
}

/** What a query has to be sent with. It is sent once: another run asks again. */
function toSend(found: Restricted): object {
  const { error } = found
  const [filter, ...others] = found.filters.values()
  found.error = undefined
  found.filters.clear()
  found.isPage = false
  if (error !== undefined) throw error
  if (filter === undefined)
    throw new NotPermitted('the permissions of this query were not asked for: were the hooks of the schema skipped?')
  found.wasSent = true
  return others.length === 0 ? filter : { $and: [filter, ...others] }
}

/** Marks a query. A second mark would replace the first one, so it is an error. */
function mark(query: object, how: Mark): void {
  if (MARKS.has(query)) throw new TypeError('readableBy, permittedFor and unscoped may be called only once for a query')
  MARKS.set(query, how)
}

function missing(what: string): NotPermitted {
  return new NotPermitted(`${what}(…) has neither readableBy(…) nor unscoped('reason')`)
}

function unrestricted(op: string | undefined): FilterChanged {
  return new FilterChanged(`the restriction of this ${op ?? 'query'} was not what was sent`)
}

/** The conditions of a query, and the options with which mongoose will change them when it sends them. */
function ownConditions(query: MongooseQuery, model: MongooseModel): { filter: object; options: Record<string, unknown> } {
  // A copy, because casting changes the conditions in place. The query's own clone is restricted.
  const { clone } = Object.getPrototypeOf(query) as MongooseQuery
  const filter = clone.call(query).getFilter()
  const all = { ...query.getOptions(), ...query._mongooseOptions }
  // Those of a cursor are changed already, and their aliases are not translated.
  const isCursor = query.model !== model
  const names = OPTIONS_OF_CONDITIONS.filter((name) => !isCursor || name !== 'sanitizeFilter')
  return {
    filter: all['translateAliases'] && !isCursor ? model.translateAliases(filter) : filter,
    options: Object.fromEntries(names.map((name) => [name, all[name]])),
  }
}

/** The conditions with which a pipeline begins. */
function leading(pipeline: readonly Record<string, unknown>[]): object {
  const end = pipeline.findIndex((stage) => !('$match' in stage))
  const conditions = (end < 0 ? pipeline : pipeline.slice(0, end)).map(({ $match }) => $match)
  return conditions.length === 0 ? {} : { $and: conditions }
}

const REFUSING = new WeakSet<object>()

/** Makes queries refuse a restricted one as their filter: mongoose would copy its conditions without the restriction. */
function refuseAsFilter(prototype: MongooseQuery): void {
  if (REFUSING.has(prototype)) return
  REFUSING.add(prototype)
  const { merge } = prototype
  prototype.merge = function (source: unknown) {
    const found = typeof source === 'object' && source !== null ? MARKS.get(source) : undefined
    if (found !== undefined && 'restriction' in found) throw new NotPermitted('a restricted query cannot be the filter of another one')
    return merge.call(this, source)
  }
}

/** Whether a filter compares with a text. */
function hasText(value: unknown): boolean {
  if (typeof value === 'string') return true
  if (typeof value !== 'object' || value === null || '_bsontype' in value || value instanceof Date) return false
  // The names of types are no texts of documents.
  return Object.entries(value).some(([name, part]) => name !== '$type' && hasText(part))
}

function clientPreference({ collection }: MongooseModel): unknown {
  return collection.conn?.getClient?.()?.options?.readPreference
}

/** The mode of a read preference, in the forms in which mongoose has it. */
function modeOf(preference: unknown): string {
  if (Array.isArray(preference)) return modeOf(preference[0])
  const mode = typeof preference === 'object' && preference !== null && 'mode' in preference ? String(preference.mode) : String(preference)
  return mode === 'p' ? 'primary' : mode
}
