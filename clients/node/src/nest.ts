/**
 * NestJS: a guard, and a decorator in place of each check.
 *
 * @module permcached/nest
 */

import { HttpException } from '@nestjs/common'
import { Guard, noCounts, type GuardCounts, type GuardOptions, type Refusal } from './guard.js'
import type { Permissions } from './permissions.js'

export type { GuardCounts, GuardOptions, Refusal } from './guard.js'
export { differencesTo, type Difference, type DifferencesFile, type ShadowOptions, type Sink } from './shadow.js'

/** The request: that of Express or of Fastify, as the application uses. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type NestRequest = any

/** What this guard uses of Nest's ExecutionContext. */
export interface GuardedContext {
  getHandler(): { readonly name: string }
  getClass(): { readonly name: string }
  getType(): string
  switchToHttp(): { getRequest(): NestRequest; getResponse(): NestRequest }
}

/** What a decorator requires. */
type Required =
  | {
      readonly permission: string
      readonly type: string
      readonly id: (request: NestRequest) => unknown
      readonly options: GuardOptions<NestRequest>
    }
  | { readonly unguarded: string }

/** What handlers, and classes of them, require. */
const REQUIRED = new WeakMap<object, Required>()

/** A decorator of a handler, or of a class of them. */
export type HandlerDecorator = MethodDecorator & ClassDecorator

function decorator(required: Required): HandlerDecorator {
  return (target: object, _name?: unknown, descriptor?: PropertyDescriptor) => {
    REQUIRED.set((descriptor?.value as object | undefined) ?? target, required)
  }
}

/** Lets a request pass if its subject has the permission on the resource. For a handler, or for all handlers of a class. */
export function RequirePermission(
  permission: string,
  type: string,
  id: (request: NestRequest) => unknown,
  options: GuardOptions<NestRequest> = {},
): HandlerDecorator {
  return decorator({ permission, type, id, options })
}

/** Marks a handler, or all handlers of a class, as open to everybody. `reason` is for those who read the code. */
export function Unguarded(reason: string): HandlerDecorator {
  if (typeof reason !== 'string' || reason === '') throw new TypeError('Unguarded takes the reason why the handler is open to everybody')
  return decorator({ unguarded: reason })
}

/** The guard. It refuses handlers that have neither decorator. For `app.useGlobalGuards`, `APP_GUARD` or `@UseGuards`. */
export class PermissionGuard {
  readonly #permissions: Permissions
  readonly #defaults: GuardOptions<NestRequest>
  readonly #guards = new WeakMap<object, Guard<NestRequest>>()
  /** How often this guard decided. */
  readonly counts: Readonly<GuardCounts>
  readonly #counts = noCounts()

  constructor(permissions: Permissions, defaults: GuardOptions<NestRequest> = {}) {
    this.#permissions = permissions
    this.#defaults = defaults
    this.counts = this.#counts
  }

  async canActivate(context: GuardedContext): Promise<boolean> {
    const handler = context.getHandler()
    const required = REQUIRED.get(handler) ?? REQUIRED.get(context.getClass())
    if (required === undefined) {
      throw new Error(`${context.getClass().name}.${handler.name} has neither @RequirePermission(…) nor @Unguarded('reason')`)
    }
    if ('unguarded' in required) return true
    if (context.getType() !== 'http') throw new Error('PermissionGuard guards HTTP requests only')
    let guard = this.#guards.get(required)
    if (guard === undefined) {
      guard = new Guard(this.#permissions, required, { ...this.#defaults, ...required.options }, this.#counts)
      this.#guards.set(required, guard)
    }
    const http = context.switchToHttp()
    const request: NestRequest = http.getRequest()
    const response: NestRequest = http.getResponse()
    const { refusal, answer, after } = await guard.decide(request)
    if (after !== undefined) (response.raw ?? response).once('close', after)
    if (refusal !== undefined) throw refused(refusal, response)
    if (answer !== undefined) request.permission = answer
    return true
  }
}

function refused(refusal: Refusal, response: NestRequest): HttpException {
  if (refusal.retryAfterSeconds !== undefined) response.header('Retry-After', String(refusal.retryAfterSeconds))
  return new HttpException({ ...refusal.body }, refusal.status)
}
