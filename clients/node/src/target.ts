/**
 * The target: which server to connect to, as users write it and as grpc-js takes it.
 *
 * Resolves no names.
 */

import { BlockList, isIP, isIPv6 } from 'node:net'

/** Where to connect. */
export interface Target {
  /** The URI for grpc-js. */
  readonly uri: string
  /** Whether the URI's scheme requires TLS (true), forbids it (false), or leaves it open. */
  readonly tls: boolean | undefined
  /** The address, if the target is one and no name. */
  readonly address: string | undefined
}

/** The scheme of the resolver of this package, which resolves names again and again (resolver.ts). */
export const SCHEME = 'permcached'

const FORMS = 'use host:port, dns:///host:port, http://host:port or https://host:port'

/** Understands a target. Throws a TypeError that does not quote it: a URL may contain a password. */
export function parseTarget(target: unknown): Target {
  if (target === undefined || target === null || target === '') {
    throw new TypeError(`target is missing: ${FORMS}. Is the environment variable set?`)
  }
  if (typeof target !== 'string') throw new TypeError(`target must be a string: ${FORMS}`)
  const text = target.trim()
  if (/^https?:/i.test(text)) return url(text)
  if (/^unix:/i.test(text)) return { uri: text, tls: undefined, address: undefined }
  const dns = /^dns:(?:\/\/([^/]*)\/)?(.+)$/i.exec(text)
  if (dns?.[2] !== undefined) return hostPort(dns[2], dns[1] ?? '', undefined)
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) throw new TypeError(`target has an unknown scheme: ${FORMS}`)
  return hostPort(text, '', undefined)
}

function url(text: string): Target {
  if (!URL.canParse(text)) throw new TypeError(`target is no URL: ${FORMS}`)
  const { protocol, hostname, port, pathname, username, password, search, hash } = new URL(text)
  if (username !== '' || password !== '') throw new TypeError('target must not contain a user or a password: use the option token')
  if ((pathname !== '/' && pathname !== '') || search !== '' || hash !== '') throw new TypeError('target must not have a path')
  const tls = protocol === 'https:'
  if (port !== '') return hostPort(`${hostname}:${port}`, '', tls)
  // URL drops a port that is the default one of the scheme.
  const explicit = /:(\d+)\/?$/.exec(text)?.[1]
  if (tls || explicit !== undefined) return hostPort(`${hostname}:${tls ? 443 : explicit}`, '', tls)
  throw new TypeError(`target has no port: ${FORMS}`)
}

function hostPort(text: string, authority: string, tls: boolean | undefined): Target {
  const parts = /^(\[[^\]]+\]|[^:[\]/@\s]+):(\d{1,5})$/.exec(text)
  if (parts === null) {
    const reason = isIPv6(text) ? 'an IPv6 address in a target stands in brackets' : 'target has no valid host and port'
    throw new TypeError(`${reason}: ${FORMS}`)
  }
  const [, host = '', port = ''] = parts
  if (Number(port) < 1 || Number(port) > 65535) throw new TypeError("the target's port must be between 1 and 65535")
  const bare = host.replace(/^\[|\]$/g, '')
  if (host.startsWith('[') && !isIPv6(bare)) throw new TypeError(`target has no valid IPv6 address: ${FORMS}`)
  return { uri: `${SCHEME}://${authority}/${host}:${port}`, tls, address: isIP(bare) === 0 ? undefined : bare }
}

/** Networks in which a plaintext connection does not cross the internet. */
const PRIVATE = new BlockList()
for (const [network, prefix] of [
  ['127.0.0.0', 8],
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['169.254.0.0', 16],
  ['100.64.0.0', 10],
] as const) {
  PRIVATE.addSubnet(network, prefix, 'ipv4')
}
PRIVATE.addAddress('::1', 'ipv6')
PRIVATE.addSubnet('fc00::', 7, 'ipv6')
PRIVATE.addSubnet('fe80::', 10, 'ipv6')

/** Whether an address belongs to this machine or to a private network. */
export function isPrivate(address: string): boolean {
  const plain = address.replace(/%.*$/, '')
  const family = isIP(plain)
  return family !== 0 && PRIVATE.check(plain, family === 4 ? 'ipv4' : 'ipv6')
}
