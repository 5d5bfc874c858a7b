/**
 * Express 4 and 5: one line in place of each check.
 *
 * @module permcached/express
 */

import type { NextFunction, Request, RequestHandler, Response } from 'express'
import type { Answer } from './answer.js'
import { Guard, noCounts, type GuardCounts, type GuardOptions, type Refusal } from './guard.js'
import { GUARDS } from './express/marks.js'
import type { Permissions } from './permissions.js'

export type { GuardCounts, GuardOptions, Refusal } from './guard.js'
export { differencesTo, type Difference, type DifferencesFile, type ShadowOptions, type Sink } from './shadow.js'
export { assertGuarded, unguarded, type AssertGuardedOptions } from './express/guarded.js'

declare global {
  // eslint-disable-next-line @typescript-eslint/no-namespace
  namespace Express {
    interface Request {
      /** The answer that allows this request. Undefined if the fallback or the old check has decided. */
      permission?: Answer
    }
  }
}

/** Options of the guards of an application, or of one of them. */
export interface ExpressGuardOptions extends GuardOptions<Request> {
  /** Sends a refusal. It answers with the status and a short JSON text if left out. To use your error handler, call `next(error)`. */
  respond?: ((refusal: Refusal, request: Request, response: Response, next: NextFunction) => void) | undefined
}

/** Makes guards. */
export interface RequirePermission {
  /**
   * Lets a request pass if its subject has the permission on the resource. `id` returns the resource's id. `request.permission`
   * then has the answer.
   */
  (permission: string, type: string, id: (request: Request) => unknown, options?: ExpressGuardOptions): RequestHandler
  /** How often these guards decided. */
  readonly counts: Readonly<GuardCounts>
}

/** Makes the function that guards routes. `defaults` has the options of all of them, above all `subject`. */
export function createGuard(permissions: Permissions, defaults: ExpressGuardOptions = {}): RequirePermission {
  const counts = noCounts()
  const requirePermission = (permission: string, type: string, id: (request: Request) => unknown, options: ExpressGuardOptions = {}) => {
    const all = { ...defaults, ...options }
    const guard = new Guard<Request>(permissions, { permission, type, id }, all, counts)
    const { respond = send } = all
    const handler: RequestHandler = (request, response, next) => {
      guard.decide(request as Request).then(({ refusal, answer, after }) => {
        if (after !== undefined) response.once('close', after)
        if (refusal !== undefined) return respond(refusal, request as Request, response, next)
        if (answer !== undefined) request.permission = answer
        next()
      }, next)
    }
    return Object.assign(handler, { [GUARDS]: `${permission} ${type}` })
  }
  return Object.assign(requirePermission, { counts })
}

function send(refusal: Refusal, _request: Request, response: Response): void {
  if (refusal.retryAfterSeconds !== undefined) response.set('Retry-After', String(refusal.retryAfterSeconds))
  response.status(refusal.status).json(refusal.body)
}
