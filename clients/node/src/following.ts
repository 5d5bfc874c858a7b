/**
 * Follows the changes that a near cache requires: a Watch stream that continues on another instance when it ends, stands still, or has
 * been open for long.
 *
 * Keeps no answers.
 */

import { create } from '@bufbuild/protobuf'
import { status as Code, type ClientReadableStream } from '@grpc/grpc-js'
import { hashOf } from './codec.js'
import { pause, type Connection, type Limits } from './connection.js'
import { DeadlineExceeded, type PermcachedError } from './errors.js'
import { errorOf, isTransient } from './failure.js'
import { WatchRequestSchema, WatchService, type WatchResponse } from './gen/permcached/v1/watch_service_pb.js'
import { DRIFT, type Followed, type Near, type Report } from './near.js'
import type { Clock } from './time.js'

/** How long a stream may be silent. The server responds every 500 ms. */
const SILENCE_MAX_MS = 2_000

/** How often that is looked at. */
const LOOK_EVERY_MS = 250

/** The pause before the next stream is opened, doubled with each failure. */
const PAUSE_MS = 50
const PAUSE_MAX_MS = 2_000

/** The pause before a stream is opened again that was opened while the instance could not be reached. */
const RENEW_MS = 1_000

/** What the precision of two clocks may add to the difference of their times. */
const PRECISION_MS = 5

/** How long the connection may take before it is looked at again. */
const CONNECT_MS = 10_000

/** A stream that is open. */
interface Stream extends Followed {
  readonly call: ClientReadableStream<WatchResponse>
  lastAt: number
  /** When another one is to take its place: while the difference of the clocks takes no more than a twentieth of the bound. */
  renewAt: number
}

/** What a response reports. */
function reportOf({ changes, moment, domain, age, elapsed, stalenessMax }: WatchResponse): Report {
  const confirms =
    age === undefined || elapsed === undefined || stalenessMax === undefined
      ? undefined
      : { ageMs: exactMs(age), elapsedMs: exactMs(elapsed), boundMs: exactMs(stalenessMax) }
  return {
    changes: changes.map((change) => {
      const kind = change.what.case
      const isNamed = change.hash !== 0n && kind !== 'everything' && kind !== undefined
      return { hash: isNamed ? hashOf(change.hash) : undefined, moment: change.moment }
    }),
    moment,
    domain,
    ...(confirms === undefined || moment === 0n ? {} : { confirms }),
  }
}

/** Sets when another stream is to take the place of this one, after a response of it. */
function renew(stream: Stream, { elapsedMs, boundMs }: NonNullable<Report['confirms']>, now: number): void {
  // How much later than it was sent the call may have arrived.
  const uncertainMs = now - stream.startedAt - elapsedMs
  if (stream.renewAt === Infinity) stream.renewAt = uncertainMs > boundMs / 8 ? now + RENEW_MS : stream.startedAt + boundMs / 20 / DRIFT
  // This process's clock lacks some of the time, and would hide as much of a later response's delay.
  if (-uncertainMs > DRIFT * elapsedMs + PRECISION_MS) stream.renewAt = Math.min(stream.renewAt, now + RENEW_MS)
}

/** A duration in milliseconds, with its fraction. */
function exactMs({ seconds, nanos }: { seconds: bigint; nanos: number }): number {
  return Number(seconds) * 1_000 + nanos / 1e6
}

/** Follows changes from the first call of `start` until `close`. */
export class Following {
  readonly #connection: Connection
  readonly #near: Near
  readonly #clock: Clock
  readonly #ended = new AbortController()
  /** The stream that confirms what is kept, and the one that is to take its place. */
  #current: Stream | undefined
  #next: Stream | undefined
  /** The last token, from which another stream continues. */
  #token = ''
  #isOpening = false
  #isStarted = false
  #failures = 0
  #looking: NodeJS.Timeout | undefined
  /** Why the server refuses; undefined while it does not. */
  #refusal: PermcachedError | undefined
  #hasReported = false
  #waiting: (() => void)[] = []

  constructor(connection: Connection, near: Near, clock: Clock) {
    this.#connection = connection
    this.#near = near
    this.#clock = clock
  }

  /** Opens the first stream, once. */
  start(): void {
    if (this.#isStarted || this.#ended.signal.aborted) return
    this.#isStarted = true
    this.#looking = setInterval(() => this.#look(), LOOK_EVERY_MS)
    this.#looking.unref()
    void this.#open()
  }

  /** Waits for the first response. Rejects if the server refuses. */
  async ready({ deadline, signal }: Limits): Promise<void> {
    this.start()
    while (!this.#hasReported) {
      if (this.#refusal !== undefined) throw this.#refusal
      if (Date.now() >= deadline)
        throw new DeadlineExceeded('the server reported no changes before the deadline', { code: 'DEADLINE_EXCEEDED' })
      signal?.throwIfAborted()
      await Promise.race([new Promise<void>((done) => this.#waiting.push(done)), pause(Math.min(100, deadline - Date.now()), signal)])
    }
  }

  close(): void {
    this.#ended.abort()
    clearInterval(this.#looking)
    this.#current?.call.cancel()
    this.#next?.call.cancel()
  }

  /** Opens a stream where the last one has ended. It takes the place of the present one with its first response. */
  async #open(): Promise<void> {
    if (this.#isOpening || this.#next !== undefined) return
    this.#isOpening = true
    const { signal } = this.#ended
    try {
      while (!signal.aborted) {
        // A call that waits for a connection would seem to have arrived early.
        if (await this.#isConnected(signal)) break
      }
      if (!signal.aborted) this.#next = this.#opened()
    } finally {
      this.#isOpening = false
    }
  }

  async #isConnected(signal: AbortSignal): Promise<boolean> {
    try {
      await this.#connection.ready({ deadline: Date.now() + CONNECT_MS, signal })
      return true
    } catch {
      await pause(RENEW_MS, signal).catch(() => undefined)
      return false
    }
  }

  #opened(): Stream {
    if (this.#token === '') {
      // It begins anew, so no other one may confirm what was kept before: what changed in between would be reported by neither.
      this.#current?.call.cancel()
      this.#current = undefined
      this.#near.forget()
    }
    const request = this.#token === '' ? {} : { since: { moment: { case: 'token' as const, value: this.#token } } }
    const startedAt = this.#clock.now()
    const call = this.#connection.stream(WatchService.method.watch, create(WatchRequestSchema, request))
    const stream: Stream = { call, startedAt, hasReported: false, lastAt: startedAt, renewAt: Infinity }
    call.on('data', (response: WatchResponse) => this.#received(stream, response))
    call.on('error', (error: unknown) => this.#closed(stream, error))
    call.on('end', () => this.#closed(stream, undefined))
    return stream
  }

  #received(stream: Stream, response: WatchResponse): void {
    if (stream !== this.#current && stream !== this.#next) return
    const now = this.#clock.now()
    const report = reportOf(response)
    stream.lastAt = now
    this.#near.report(stream, report, now)
    if (response.token !== '') this.#token = response.token
    this.#failures = 0
    this.#refusal = undefined
    this.#hasReported = true
    for (const done of this.#waiting.splice(0)) done()
    if (stream === this.#next && (report.confirms !== undefined || this.#current === undefined)) {
      const before = this.#current
      this.#current = stream
      this.#next = undefined
      before?.call.cancel()
    }
    if (report.confirms !== undefined) renew(stream, report.confirms, now)
  }

  #closed(stream: Stream, error: unknown): void {
    const wasCurrent = stream === this.#current
    if (!wasCurrent && stream !== this.#next) return
    if (wasCurrent) {
      this.#current = undefined
      this.#near.lost()
    } else {
      this.#next = undefined
    }
    if (error !== undefined) this.#failed(error)
    if (this.#next !== undefined || this.#ended.signal.aborted) return
    if (this.#current !== undefined) {
      this.#current.renewAt = this.#clock.now() + RENEW_MS
      return
    }
    this.#failures += 1
    const backoffMs = Math.min(PAUSE_MS * 2 ** (this.#failures - 1), PAUSE_MAX_MS)
    void pause(backoffMs, this.#ended.signal).then(
      () => this.#open(),
      () => undefined,
    )
  }

  #failed(error: unknown): void {
    const failure = this.#connection.streamFailure(error)
    // The moment does not exist in the database any more, or in another one.
    if (failure.code === Code.INVALID_ARGUMENT) this.#token = ''
    else if (!isTransient(failure) && ![Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN].includes(failure.code)) {
      this.#refusal = errorOf(failure)
      for (const done of this.#waiting.splice(0)) done()
    }
  }

  /** Ends a stream that is silent, and opens one that takes the place of another in time. */
  #look(): void {
    const now = this.#clock.now()
    for (const stream of [this.#current, this.#next]) {
      if (stream !== undefined && now - stream.lastAt > SILENCE_MAX_MS) {
        stream.call.cancel()
        this.#closed(stream, undefined)
      }
    }
    if (this.#current !== undefined && now >= this.#current.renewAt) void this.#open()
  }
}
