/**
 * Fastify: a `preHandler` in place of each check.
 *
 * @module permcached/fastify
 */

import type { FastifyReply, FastifyRequest, preHandlerAsyncHookHandler } from 'fastify'
import type { Answer } from './answer.js'
import { Guard, noCounts, type GuardCounts, type GuardOptions, type Refusal } from './guard.js'
import type { Permissions } from './permissions.js'

export type { GuardCounts, GuardOptions, Refusal } from './guard.js'
export { differencesTo, type Difference, type DifferencesFile, type ShadowOptions, type Sink } from './shadow.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** The answer that allows this request. Undefined if the fallback or the old check has decided. */
    permission?: Answer
  }
}

/** Options of the guards of an application, or of one of them. */
export interface FastifyGuardOptions extends GuardOptions<FastifyRequest> {
  /** Sends a refusal. It answers with the status and a short JSON text if left out. */
  respond?: ((refusal: Refusal, request: FastifyRequest, reply: FastifyReply) => unknown) | undefined
}

/** Makes guards. */
export interface RequirePermission {
  /** Lets a request pass if its subject has the permission on the resource. `request.permission` then has the answer. */
  (permission: string, type: string, id: (request: FastifyRequest) => unknown, options?: FastifyGuardOptions): preHandlerAsyncHookHandler
  /** How often these guards decided. */
  readonly counts: Readonly<GuardCounts>
}

/** Makes the function that guards routes. `defaults` has the options of all of them, above all `subject`. */
export function createGuard(permissions: Permissions, defaults: FastifyGuardOptions = {}): RequirePermission {
  const counts = noCounts()
  const requirePermission = (
    permission: string,
    type: string,
    id: (request: FastifyRequest) => unknown,
    options: FastifyGuardOptions = {},
  ): preHandlerAsyncHookHandler => {
    const all = { ...defaults, ...options }
    const guard = new Guard<FastifyRequest>(permissions, { permission, type, id }, all, counts)
    const { respond = send } = all
    return async (request, reply) => {
      const { refusal, answer, after } = await guard.decide(request)
      if (after !== undefined) reply.raw.once('close', after)
      if (refusal !== undefined) {
        await respond(refusal, request, reply)
        return reply
      }
      if (answer !== undefined) request.permission = answer
      return undefined
    }
  }
  return Object.assign(requirePermission, { counts })
}

function send(refusal: Refusal, _request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (refusal.retryAfterSeconds !== undefined) void reply.header('Retry-After', String(refusal.retryAfterSeconds))
  return reply.code(refusal.status).send(refusal.body)
}
