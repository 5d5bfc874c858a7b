/** What queries send to: collections that add a restriction at the very moment of sending. Knows no plan. */

import type { Collection, MongooseModel } from './internals.js'

/** Methods whose first argument is the filter. */
const FILTER_FIRST = new Set([
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
const FILTER_SECOND = new Set(['distinct'])

/**
 * A collection through which every filter is combined with `permission()`, and every pipeline begins with it, at the very moment of
 * sending: after all hooks, casting and translation. Other methods that read or write throw.
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
      if (name === 'aggregate') {
        return (pipeline: readonly object[], ...rest: unknown[]) => {
          try {
            return method.call(target, [{ $match: permission(name) }, ...pipeline], ...rest)
          } catch (error) {
            return refused(error)
          }
        }
      }
      if (FORBIDDEN.test(name)) return () => permission(name) && forbidden(name)
      return method.bind(target)
    },
  })
}

/** Methods that read or write documents in other ways. */
const FORBIDDEN = /^(estimatedDocumentCount|bulkWrite|insert|findAndModify|mapReduce|watch|drop|rename)/

function forbidden(name: string): never {
  throw new TypeError(`${name} cannot be restricted by a permission`)
}

/** A cursor with an error. Some versions of mongoose call `aggregate` where nothing catches what it throws. */
function refused(error: unknown): object {
  const fail = async () => {
    throw error
  }
  return { next: fail, toArray: fail, explain: fail, close: async () => {} }
}

/** A model whose cursors and aggregations send to another collection. */
export function sendingTo(model: MongooseModel, collection: Collection): MongooseModel {
  return new Proxy(model, {
    get: (target, name): unknown => (name === 'collection' ? collection : Reflect.get(target, name, target)),
  })
}
