/**
 * Name resolution: that of grpc-js, repeated every five seconds. grpc-js by itself resolves a name again only after a
 * connection has ended, so it would not use instances that were added.
 *
 * Does not connect.
 */

import { experimental, type ChannelOptions } from '@grpc/grpc-js'
import { isPrivate, SCHEME } from './target.js'

type Uri = experimental.GrpcUri
type Listener = experimental.ResolverListener
type Endpoints = experimental.StatusOr<experimental.Endpoint[]>

/** How often names are resolved. */
export const RESOLVE_EVERY_MS = 5_000

/** The channel option with a function that is called with each public address to which no plaintext connection may be made. */
export const REFUSE_PUBLIC = 'permcached.refuse_public'

const inner = (target: Uri): Uri => ({ ...target, scheme: 'dns' })

class RepeatingResolver implements experimental.Resolver {
  readonly #dns: experimental.Resolver
  readonly #listener: Listener
  readonly #refuse: ((address: string) => void) | undefined
  #timer: NodeJS.Timeout | undefined
  /** The addresses of the last result, or undefined if it was an error. */
  #last: string | undefined

  constructor(target: Uri, listener: Listener, options: ChannelOptions) {
    this.#listener = listener
    this.#refuse = options[REFUSE_PUBLIC] as ((address: string) => void) | undefined
    this.#dns = experimental.createResolver(inner(target), this.#resolved.bind(this), options)
  }

  #resolved(
    endpoints: Endpoints,
    ...rest: [attributes: { [key: string]: unknown }, config: Parameters<Listener>[2], note: string]
  ): boolean {
    if (!endpoints.ok) {
      this.#last = undefined
      return this.#listener(endpoints, ...rest)
    }
    const permitted = endpoints.value.filter(({ addresses }) => addresses.every((address) => this.#permits(address)))
    // The order changes with every answer of a name server.
    const all = JSON.stringify(permitted.map(({ addresses }) => JSON.stringify(addresses)).sort())
    // An unchanged list would make grpc-js build its balancer anew.
    if (all === this.#last) return true
    this.#last = all
    return this.#listener(experimental.statusOrFromValue(permitted), ...rest)
  }

  #permits(address: experimental.SubchannelAddress): boolean {
    if (this.#refuse === undefined || !('host' in address) || isPrivate(address.host)) return true
    this.#refuse(address.host)
    return false
  }

  updateResolution(): void {
    this.#timer ??= setInterval(() => this.#dns.updateResolution(), RESOLVE_EVERY_MS).unref()
    this.#dns.updateResolution()
  }

  destroy(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#last = undefined
    this.#dns.destroy()
  }

  static getDefaultAuthority(target: Uri): string {
    return target.path
  }
}

/** Makes the scheme known to grpc-js. */
export function registerResolver(): void {
  experimental.registerResolver(SCHEME, RepeatingResolver)
}
