/** Which routes of an Express application have no guard. Reads the routers of Express 4 and 5; sends nothing. */

import type { RequestHandler } from 'express'
import { GUARDS, UNGUARDED } from './marks.js'

/** Which routes may have no guard. */
export interface AssertGuardedOptions {
  /** Routes that are left out, as `GET /path` or as a pattern of that text. */
  except?: readonly (string | RegExp)[] | undefined
}

/** Marks a route, or all routes below, as open to everybody. `reason` is for those who read the code. */
export function unguarded(reason: string): RequestHandler {
  if (typeof reason !== 'string' || reason === '') throw new TypeError('unguarded takes the reason why the route is open to everybody')
  return Object.assign(((_request, _response, next) => next()) as RequestHandler, { [UNGUARDED]: reason })
}

/** What this file reads of a layer of a router. */
interface Layer {
  readonly handle?: Handler
  readonly route?: { readonly path: unknown; readonly stack: readonly (Layer & { readonly method?: string })[] }
  /** Express 4: the pattern of the path at which a router was mounted. */
  readonly regexp?: RegExp & { fast_slash?: boolean }
}

interface Handler {
  readonly stack?: readonly Layer[]
  readonly [GUARDS]?: string
  readonly [UNGUARDED]?: string
}

/** For tests: throws if a route has neither a guard nor the mark of `unguarded`, and names all of these. */
export function assertGuarded(app: object, { except = [] }: AssertGuardedOptions = {}): void {
  // Express 5 has `router`. In Express 4 that is a getter that throws.
  const { _router, stack } = app as { _router?: Handler; stack?: readonly Layer[] }
  const layers = stack ?? (_router ?? (app as { router?: Handler }).router)?.stack
  if (layers === undefined) throw new TypeError('assertGuarded takes an Express application or a router that has routes')
  const open = [...openRoutes(layers, '', false)]
  const isExcepted = (route: string) => except.some((each) => (typeof each === 'string' ? each === route : each.test(route)))
  const wrong = open.filter((route) => !isExcepted(route))
  if (wrong.length > 0) {
    throw new Error(
      `these routes have no requirePermission(…):\n${wrong.map((route) => `  ${route}`).join('\n')}\n` +
        "Add one, or unguarded('reason') if a route is open to everybody.",
    )
  }
}

/** The routes that no guard precedes, in a router or in the route itself. */
function* openRoutes(layers: readonly Layer[], prefix: string, isGuardedAbove: boolean): Generator<string> {
  let isGuarded = isGuardedAbove
  for (const layer of layers) {
    const { handle, route } = layer
    if (route !== undefined) {
      if (!isGuarded) yield* openMethods(route, prefix)
    } else if (handle?.stack !== undefined) {
      yield* openRoutes(handle.stack, prefix + mountedAt(layer), isGuarded)
    } else if (isMarked(handle) && coversEverything(layer)) {
      isGuarded = true
    }
  }
}

function* openMethods(route: NonNullable<Layer['route']>, prefix: string): Generator<string> {
  const methods = new Set(route.stack.map(({ method }) => method ?? 'all'))
  // Handlers for all methods also handle each method that has handlers of its own.
  if (methods.size > 1) methods.delete('all')
  for (const method of methods) {
    const own = route.stack.filter((layer) => layer.method === undefined || layer.method === method)
    // A guard that comes last guards nothing.
    if (!own.slice(0, -1).some(({ handle }) => isMarked(handle))) yield `${method.toUpperCase()} ${prefix}${String(route.path)}`
  }
}

function isMarked(handle: Handler | undefined): boolean {
  return handle?.[GUARDS] !== undefined || handle?.[UNGUARDED] !== undefined
}

/** Whether a handler was added without a path, so that it handles everything below. */
function coversEverything(layer: Layer): boolean {
  if (layer.regexp !== undefined) return layer.regexp.fast_slash === true
  return (layer as { slash?: boolean }).slash === true
}

/** The path at which a router was mounted, as far as Express 4 keeps it. Express 5 keeps only a function. */
function mountedAt({ regexp }: Layer): string {
  if (regexp === undefined || regexp.fast_slash === true) return ''
  const path = /^\^((?:\\\/[\w-]+)+)/.exec(regexp.source)?.[1]
  return path === undefined ? '' : path.replaceAll('\\/', '/')
}
