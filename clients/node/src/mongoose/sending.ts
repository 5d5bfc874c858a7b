/** What queries send to: collections that add a restriction at the very moment of sending. Knows no plan. */

import { NotPermitted } from './errors.js'
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
      if (FILTER_FIRST.has(name)) {
        return (filter: unknown, ...rest: unknown[]) => {
          rest.forEach(refuseUpsert)
          return method.call(target, combined(name, filter), ...rest)
        }
      }
      if (FILTER_SECOND.has(name)) {
        return (field: unknown, filter: unknown, ...rest: unknown[]) => method.call(target, field, combined(name, filter), ...rest)
      }
      if (name === 'aggregate') {
        return (pipeline: readonly object[], ...rest: unknown[]) => {
          try {
            refuseStages(pipeline, target.name)
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

/** Refuses options with `upsert`. A hook may have added it. */
export function refuseUpsert(options: unknown): void {
  if (typeof options === 'object' && options !== null && 'upsert' in options && options.upsert) {
    throw new NotPermitted('an upsert cannot be restricted: it would write what the restriction compares')
  }
}

const OTHER_COLLECTIONS = new Set(['$unionWith', '$lookup', '$graphLookup', '$merge', '$out'])

/** Refuses stages that read or write a collection again, at any depth: the restriction does not apply to them. */
function refuseStages(part: unknown, collection: string): void {
  if (typeof part !== 'object' || part === null || '_bsontype' in part || ArrayBuffer.isView(part)) return
  for (const [name, value] of Object.entries(part)) {
    if (OTHER_COLLECTIONS.has(name) && namesCollection(value, collection)) {
      throw new NotPermitted(`${name} of the model's own collection cannot be restricted`)
    }
    refuseStages(value, collection)
  }
}

function namesCollection(stage: unknown, collection: string): boolean {
  if (typeof stage !== 'object' || stage === null) return stage === collection
  return Object.entries(stage).some(([name, value]) => ['coll', 'from', 'into'].includes(name) && namesCollection(value, collection))
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
