/** The marks of handlers that guard a route, or leave it open. Global symbols, so that two copies of the package agree. */

/** The mark of `requirePermission`. */
export const GUARDS: unique symbol = Symbol.for('permcached.guards') as never

/** The mark of `unguarded`. */
export const UNGUARDED: unique symbol = Symbol.for('permcached.unguarded') as never
