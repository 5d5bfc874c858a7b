/**
 * A drop-in for a cache of permission checks: the same three functions, answered by permcached.
 *
 * Keeps no answers.
 */

import type { PermcachedError } from './errors.js'
import type { Id } from './id.js'
import type { Permissions } from './permissions.js'
import type { Subject } from './question.js'

/** A resource, and what to do to it. */
export interface CacheQuestion {
  resourceId: Id
  resourceType: string
  /** `read` if left out. */
  action?: string | undefined
}

/** The functions of the cache. */
export interface PermissionCache {
  /** Whether the user has the permission. False for every error, which is passed to `onError`. */
  checkPermission(userId: Subject, resourceId: Id, resourceType: string, action?: string): Promise<boolean>
  /** The same objects, in order, with `allowed`. */
  checkBatchPermissions<T extends CacheQuestion>(userId: Subject, resources: readonly T[]): Promise<(T & { allowed: boolean })[]>
  /** Makes the server read the resource again, and drops all kept answers. permcached follows changes by itself, so this is rarely of use. */
  invalidatePermission(resourceId: Id, resourceType: string): Promise<void>
}

/** What to do with errors, which the functions do not report. */
export interface PermissionCacheOptions {
  /** Is called with each error. It logs if left out. */
  onError?: ((error: unknown) => void) | undefined
}

/** The three functions. They can be used without the object. */
export function createPermissionCache(permissions: Permissions, { onError = log }: PermissionCacheOptions = {}): PermissionCache {
  const failed = (error: unknown): false => {
    onError(error)
    return false
  }
  return {
    async checkPermission(userId, resourceId, resourceType, action = 'read') {
      try {
        return await permissions.can(userId, action, resourceType, resourceId)
      } catch (error) {
        return failed(error)
      }
    },
    async checkBatchPermissions(userId, resources) {
      const check = async (resource: CacheQuestion) => {
        const { resourceId, resourceType, action = 'read' } = resource
        return permissions.can(userId, action, resourceType, resourceId).catch(failed)
      }
      return Promise.all(resources.map(async (resource) => ({ ...resource, allowed: await check(resource) })))
    },
    async invalidatePermission(resourceId, resourceType) {
      try {
        await permissions.invalidate({ resources: [{ type: resourceType, id: resourceId }] })
      } catch (error) {
        failed(error)
      }
    },
  }
}

function log(error: unknown): void {
  const { code, message } = error as Partial<PermcachedError>
  console.error(`permcached: no answer${code === undefined ? '' : ` (${code})`}: ${message ?? String(error)}`)
}
