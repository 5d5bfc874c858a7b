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
  _mongooseOptions?: Record<string, unknown>
  options: Record<string, unknown>
  getFilter(): object
  getOptions(): Record<string, unknown>
  setOptions(options: object): unknown
  cursor(options?: object): unknown
  clone(): MongooseQuery
  merge(source: unknown): unknown
  toConstructor?: () => unknown
  skip(count: number): unknown
}

export interface MongooseModel {
  readonly modelName: string
  readonly collection: Collection
  readonly schema: { readonly options: Record<string, unknown>; readonly plugins?: readonly { readonly fn: object }[] }
  readonly base: {
    readonly Query: { readonly prototype: MongooseQuery }
    readonly mongo: { readonly BSON?: { readonly EJSON: ExtendedJson } }
    readonly Aggregate: { readonly prototype: object }
  }
  find(filter?: object): CandidateQuery
  translateAliases(filter: object): object
}

/** What the plugin uses of a query for candidates. */
export interface CandidateQuery {
  model: MongooseModel
  setOptions(options: object): unknown
  select(fields: object | string): this
  lean(): this
  cursor(options?: object): AsyncIterable<Record<string, unknown>>
}

export interface MongooseAggregate {
  _model?: MongooseModel
  options: Record<string, unknown>
  pipeline(): Record<string, unknown>[]
  model(...other: unknown[]): unknown
}

export interface ExtendedJson {
  parse(text: string, options: { relaxed: boolean }): unknown
}

/** A collection, as mongoose wraps that of the driver. */
export interface Collection {
  readonly name: string
  readonly conn?: { getClient?: () => { options?: { readPreference?: { mode?: string } } } | undefined }
}
