/**
 * The connection: a channel to all instances, calls with retries within one deadline, and streams.
 *
 * Knows no questions.
 */

import {
  Client,
  connectivityState,
  credentials,
  Metadata,
  status as Code,
  type ChannelCredentials,
  type ClientReadableStream,
  type ServiceError,
} from '@grpc/grpc-js'
import {
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethodStreaming,
  type DescMethodUnary,
  type MessageShape,
} from '@bufbuild/protobuf'
import { DeadlineExceeded, NoAnswer, PermcachedError, Unavailable } from './errors.js'
import { failureOfCall, isTransient, type Failure } from './failure.js'
import { REFUSE_PUBLIC, registerResolver, RESOLVE_EVERY_MS } from './resolver.js'
import { isPrivate, parseTarget } from './target.js'

/** The keys of TLS. */
export interface TlsOptions {
  /** The certificates of the authorities to trust, as PEM. Those of the system if left out. */
  ca?: Buffer | string | undefined
  /** For mutual TLS: this client's certificate, as PEM. */
  cert?: Buffer | string | undefined
  /** For mutual TLS: the certificate's key, as PEM. */
  key?: Buffer | string | undefined
}

/** How to connect. */
export interface ConnectionOptions {
  target: string
  token?: string | undefined
  tls?: boolean | TlsOptions | undefined
  insecure?: boolean | undefined
}

/** Limits of one call. */
export interface Limits {
  /** The end of the call, with all its attempts: milliseconds of `Date.now()`. */
  readonly deadline: number
  readonly signal?: AbortSignal | undefined
}

/** How often a call is tried. */
const ATTEMPTS_MAX = 4

/** The pause before the first retry. Each further one is twice as long. */
const BACKOFF_MS = 20

/** How much of a deadline may be left when another side ends the call because of it. */
const DEADLINE_TOLERANCE_MS = 10

/** A call that failed. */
export class CallFailed extends Error {
  constructor(readonly failure: Failure) {
    super(failure.message)
  }
}

const CHANNEL_OPTIONS = {
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
  'grpc.service_config_disable_resolution': 1,
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.dns_min_time_between_resolutions_ms': RESOLVE_EVERY_MS - 500,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 2_000,
  // Retries are made here, because grpc-js knows no RetryInfo.
  'grpc.enable_retries': 0,
  // A permission service is in the same private network.
  'grpc.enable_http_proxy': 0,
}

/** A channel to all instances of a server. */
export class Connection {
  readonly #client: Client
  readonly #metadata: Metadata
  /** A public address that the name resolves to, and to which the token must not be sent in plaintext. */
  #refused: string | undefined
  #isClosed = false
  /** How many retries there were. */
  retries = 0

  constructor(options: ConnectionOptions) {
    const target = parseTarget(options.target)
    const tls = options.tls ?? target.tls ?? false
    if (target.tls !== undefined && ((options.tls ?? target.tls) !== false) !== target.tls) {
      throw new TypeError('the target and the option tls contradict each other')
    }
    const guards = options.token !== undefined && tls === false && options.insecure !== true
    if (guards && target.address !== undefined && !isPrivate(target.address)) throw new TypeError(refusal(target.address))
    // grpc-js reads waitForReady only from here, not from the service config.
    this.#metadata = new Metadata({ waitForReady: true })
    if (options.token !== undefined) this.#metadata.set('authorization', `Bearer ${validToken(options.token)}`)
    registerResolver()
    const refuse = (address: string) => void (this.#refused = address)
    this.#client = new Client(target.uri, channelCredentials(tls), {
      ...CHANNEL_OPTIONS,
      ...(guards ? { [REFUSE_PUBLIC]: refuse } : {}),
    })
  }

  /** Makes one call, and retries it while that may help and time is left. Rejects with `CallFailed`, or as `signal` asks. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    limits: Limits,
  ): Promise<MessageShape<O>> {
    const bytes = toBinary(method.input, request)
    return this.callBytes(pathOf(method), bytes, (response) => fromBinary(method.output, response), limits)
  }

  /** The same with a request that is encoded already. */
  async callBytes<T>(path: string, request: Uint8Array, decode: (bytes: Buffer) => T, limits: Limits): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#attempt(path, request, decode, limits)
      } catch (error) {
        if (!(error instanceof CallFailed)) throw error
        const pauseMs = pauseBefore(attempt, error.failure)
        if (pauseMs === undefined || Date.now() + pauseMs >= limits.deadline) throw error
        this.retries += 1
        await pause(pauseMs, limits.signal)
      }
    }
  }

  #attempt<T>(path: string, request: Uint8Array, decode: (bytes: Buffer) => T, { deadline, signal }: Limits): Promise<T> {
    this.#open()
    signal?.throwIfAborted()
    return new Promise((resolve, reject) => {
      const done = (error: ServiceError | null, response?: T) => {
        signal?.removeEventListener('abort', abort)
        if (error === null) resolve(response as T)
        else if (signal?.aborted) reject(signal.reason)
        else reject(new CallFailed(this.#explained(error, deadline)))
      }
      const call = this.#client.makeUnaryRequest(path, asBuffer, decode, request, this.#metadata, { deadline }, done)
      const abort = () => call.cancel()
      signal?.addEventListener('abort', abort, { once: true })
    })
  }

  /** A failure, with what this client knows about its reason. */
  #explained(error: ServiceError, deadline: number): Failure {
    const failure = failureOfCall(error)
    if (this.#refused !== undefined) return { ...failure, code: Code.FAILED_PRECONDITION, message: refusal(this.#refused) }
    // The server, or HTTP/2, may end the call a moment before this side does.
    if (failure.code === Code.CANCELLED && Date.now() >= deadline - DEADLINE_TOLERANCE_MS) {
      return { ...failure, code: Code.DEADLINE_EXCEEDED }
    }
    return failure
  }

  /** Opens a stream. It ends when the signal is aborted. */
  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    request: MessageShape<I>,
  ): ClientReadableStream<MessageShape<O>> {
    this.#open()
    const decode = (bytes: Uint8Array) => fromBinary(method.output, bytes)
    return this.#client.makeServerStreamRequest(pathOf(method), asBuffer, decode, toBinary(method.input, request), this.#metadata)
  }

  /** The failure of a stream, from what it threw. */
  streamFailure(error: unknown): Failure {
    return this.#explained(error as ServiceError, Infinity)
  }

  /** Connects, and waits until at least one instance is connected. */
  async ready({ deadline, signal }: Limits): Promise<void> {
    this.#open()
    const channel = this.#client.getChannel()
    for (;;) {
      signal?.throwIfAborted()
      const state = channel.getConnectivityState(true)
      if (state === connectivityState.READY) return
      if (this.#refused !== undefined) throw new PermcachedError(refusal(this.#refused), { code: 'FAILED_PRECONDITION' })
      if (Date.now() >= deadline) {
        throw new DeadlineExceeded('no instance could be connected before the deadline', { code: 'DEADLINE_EXCEEDED' })
      }
      await this.#changed(state, Math.min(deadline, Date.now() + 250))
    }
  }

  #changed(state: connectivityState, until: number): Promise<void> {
    return new Promise((resolve) => this.#client.getChannel().watchConnectivityState(state, until, () => resolve()))
  }

  #open(): void {
    if (this.#isClosed) throw new NoAnswer('the client is closed', { code: 'CANCELLED' })
    if (this.#refused !== undefined) throw new PermcachedError(refusal(this.#refused), { code: 'FAILED_PRECONDITION' })
  }

  /** Ends the connection. Calls that are open fail. */
  close(): void {
    this.#isClosed = true
    this.#client.close()
  }
}

/** How long to wait before the next attempt, or undefined if there is none. */
function pauseBefore(attempt: number, failure: Failure): number | undefined {
  if (attempt >= ATTEMPTS_MAX || !isTransient(failure)) return undefined
  // Up to a fifth more or less, so that clients do not return at the same time.
  const backoff = BACKOFF_MS * 2 ** (attempt - 1) * (0.8 + 0.4 * Math.random())
  return Math.max(failure.retryAfterMs ?? 0, backoff)
}

/** Waits. Rejects with the signal's reason when it is aborted. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    if (signal?.aborted) return reject(signal.reason)
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', abort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', abort, { once: true })
  })
}

/** The path of a method in HTTP/2. */
export function pathOf(method: DescMethodUnary | DescMethodStreaming): string {
  return `/${method.parent.typeName}/${method.name}`
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function channelCredentials(tls: boolean | TlsOptions): ChannelCredentials {
  if (tls === false) return credentials.createInsecure()
  if (tls === true) return credentials.createSsl()
  const pem = (text: Buffer | string | undefined) => (text === undefined ? null : Buffer.from(text as string))
  return credentials.createSsl(pem(tls.ca), pem(tls.key), pem(tls.cert))
}

/** A token that can be sent. The error does not quote it. */
function validToken(token: unknown): string {
  if (typeof token === 'string' && /^[\x21-\x7e]+$/.test(token)) return token
  throw new TypeError('token must be a text of visible ASCII characters without spaces. Is the environment variable set?')
}

function refusal(address: string): string {
  return (
    `the token would be sent in plaintext to the public address ${address}: use https://, or the option tls. ` +
    'If the network is trusted all the same, set insecure: true'
  )
}

/** The error for a client that was closed while a call waited. */
export function closed(): Unavailable {
  return new Unavailable('the client is closed', { code: 'CANCELLED' })
}
