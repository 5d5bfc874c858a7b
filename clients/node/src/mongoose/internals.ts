/** What the plugin uses of mongoose. Its own types differ between the major versions. */

/** A query, or what the plugin reads and replaces in it. */
export interface MongooseQuery {
  op?: string
  model: MongooseModel
  /** The collection that mongoose 8 and 9 send to. */
  mongooseCollection: Collection
  /** The same for mongoose 7. */
  _collection?: { collection?: Collection }
  _conditions: object
  options: Record<string, unknown>
  getFilter(): object
  getOptions(): Record<string, unknown>
  setOptions(options: object): unknown
  cursor(options?: object): unknown
  clone(): MongooseQuery
  toConstructor?: () => unknown
  skip(count: number): unknown
}

export interface MongooseModel {
  readonly modelName: string
  readonly collection: Collection
  readonly schema: { readonly options: Record<string, unknown>; readonly plugins?: readonly { readonly fn: object }[] }
  readonly base: {
    readonly mongo: { readonly BSON?: { readonly EJSON: ExtendedJson } }
    readonly Aggregate: { readonly prototype: object }
  }
  find(filter?: object): CandidateQuery
}

/** What the plugin uses of a query for candidates. */
export interface CandidateQuery {
  setOptions(options: object): unknown
  select(fields: object | string): this
  lean(): this
  cursor(options?: object): AsyncIterable<Record<string, unknown>>
}

export interface MongooseAggregate {
  _model?: MongooseModel
  options: Record<string, unknown>
  pipeline(): Record<string, unknown>[]
}

export interface ExtendedJson {
  parse(text: string, options: { relaxed: boolean }): unknown
}

/** A collection, as mongoose wraps that of the driver. */
export interface Collection {
  readonly name: string
  readonly conn?: { getClient?: () => { options?: { readPreference?: { mode?: string } } } }
}

/** Methods whose first argument is the filter. */
export const FILTER_FIRST = new Set([
  'find',
  'findOne',
  'count',
  'countDocuments',
  'deleteOne',
  'deleteMany',
  'updateOne',
  'updateMany',
  'replaceOne',
  'findOneAndUpdate',
  'findOneAndDelete',
  'findOneAndReplace',
])

/** Methods whose second argument is the filter. */
export const FILTER_SECOND = new Set(['distinct'])

/**
 * A collection through which every filter is combined with `permission()`, at the very moment of sending: after all hooks,
 * casting and translation. Other methods that read or write throw.
 */
export function restricted(collection: Collection, permission: (method: string) => object): Collection {
  const combined = (method: string, own: unknown) => {
    const restriction = permission(method)
    return own === undefined || own === null ? restriction : { $and: [restriction, own] }
  }
  return new Proxy(collection, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function' || typeof name !== 'string') return value
      const method = value as (...args: unknown[]) => unknown
      if (FILTER_FIRST.has(name)) return (filter: unknown, ...rest: unknown[]) => method.call(target, combined(name, filter), ...rest)
      if (FILTER_SECOND.has(name)) {
        return (field: unknown, filter: unknown, ...rest: unknown[]) => method.call(target, field, combined(name, filter), ...rest)
      }
      if (FORBIDDEN.test(name)) return () => permission(name) && forbidden(name)
      return method.bind(target)
    },
  })
}

/** Methods that read or write documents in other ways. */
const FORBIDDEN = /^(estimatedDocumentCount|aggregate|bulkWrite|insert|findAndModify|mapReduce|watch|drop|rename)/

function forbidden(name: string): never {
  throw new TypeError(`${name} cannot be restricted by a permission`)
}
