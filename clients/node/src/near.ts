/**
 * The near cache: answers kept in this process until a change concerns them. docs/freshness.md of the project, "Kept answers", has the
 * rules and why they suffice.
 *
 * Opens no stream: `following.ts` passes on what the server reports. Reads no clock: its callers pass the time.
 */

import type { Answer } from './answer.js'
import type { DependsOn } from './codec.js'

/** What one response of a Watch stream reports. */
export interface Report {
  readonly changes: readonly ReportedChange[]
  /** Every change up to this moment was reported. 0 if more responses must come first. */
  readonly moment: bigint
  /** What answers must have in common with the stream. 0 if the server cannot confirm that answers are right. */
  readonly domain: bigint
  /** The age of the state that the response confirms; undefined if it confirms none. */
  readonly confirms?: { readonly ageMs: number; readonly elapsedMs: number; readonly boundMs: number }
}

/** A change. */
export interface ReportedChange {
  /** What changed; undefined if anything may have. */
  readonly hash: number | undefined
  readonly moment: bigint
}

/** A Watch stream. */
export interface Followed {
  /** When the call was sent. */
  readonly startedAt: number
  /** Whether it has reported anything. */
  hasReported: boolean
}

interface Entry {
  readonly answer: Answer
  readonly hashes: readonly number[]
  /** When time alone may change the answer. */
  readonly end: number
  /** The `validUntil` of the answer, by the clock of dates. */
  readonly endDate: number
}

/** A change of something. */
interface Noted {
  readonly moment: bigint
  /** An answer that depends on it may be kept if its request was sent later. */
  readonly until: number
}

/** An answer may be kept if it is true as of this moment or later, and its request was sent later than this time. */
interface Floor {
  readonly moment: bigint
  readonly time: number
}

/** For how long the last response of the stream lets kept answers be used. */
const SILENCE_MAX_MS = 1_500

/**
 * How far two clocks may differ: a thousandth of the time. ntpd and systemd-timesyncd correct a clock by half of that at most. chrony may
 * correct it by 8 % (`maxslewrate`), and a virtual machine may be paused: a state therefore counts as no fresher than its response's arrival.
 */
export const DRIFT = 1 / 1_000

/** How many changes are noted. */
const CHANGES_MAX = 16_384

/** The bound of a server that has not sent its own. The longest that one may have. */
const BOUND_MAX_MS = 60_000

/** No change at all. */
const NOTHING: Floor = { moment: 0n, time: -Infinity }

const max = (a: bigint, b: bigint) => (a > b ? a : b)

/** Answers, by the keys of their questions. */
export class Near {
  /** The least recently used one comes first. */
  readonly #entries = new Map<string, Entry>()
  /** The keys of the answers that depend on something. */
  readonly #dependents = new Map<number, Set<string>>()
  /** The latest change of something, the earliest first. */
  readonly #changes = new Map<number, Noted>()
  /** Where the stream began; undefined before. */
  #floor: Floor | undefined
  /** The latest time that `#boundFrom` has returned. A stream that begins anew does not reset it. */
  #latestUntil = -Infinity
  /** The changes that were too many to be noted. */
  #forgotten = NOTHING
  #domain = 0n
  #boundMs = BOUND_MAX_MS
  /** Whether a stream is open and has confirmed something. */
  #isOpen = false
  /** When the last response came that has confirmed something. */
  #confirmedAt = -Infinity
  /** Every write that was acknowledged before this time has been reported. */
  #freshAt = -Infinity

  constructor(
    readonly maxEntries: number,
    readonly changesMax = CHANGES_MAX,
  ) {}

  /** How many answers are kept. */
  get size(): number {
    return this.#entries.size
  }

  /** The bound that the server has sent. */
  get boundMs(): number {
    return this.#boundMs
  }

  /** Whether kept answers may be used. */
  isConfirmed(now: number): boolean {
    return this.#isOpen && now - this.#confirmedAt <= SILENCE_MAX_MS && now - this.#freshAt <= this.#boundMs
  }

  /** Whether the answer to a request that is sent now can be kept. */
  isKeeping(now: number): boolean {
    return this.isConfirmed(now) && this.#floor !== undefined && now > this.#floor.time
  }

  /** A kept answer that still holds at the time `now`, on the date `date`. Each caller gets an object of its own. */
  get(key: string, now: number, date: number): Answer | undefined {
    if (!this.isConfirmed(now)) return undefined
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    // The first one holds although clocks are set. The second one holds although the date of the server was wrong when it answered.
    if (now >= entry.end || date >= entry.endDate) {
      this.#remove(key, entry)
      return undefined
    }
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    const hit = { ...entry.answer, tier: 'NEAR' as const, ageMs: Math.max(0, Math.ceil(now - this.#freshAt)) }
    return hit.validUntil === undefined ? hit : { ...hit, validUntil: new Date(entry.endDate) }
  }

  /** Keeps an answer whose request was sent at `sentAt`, if that is safe. Returns whether it was kept. */
  put(key: string, answer: Answer, dependsOn: DependsOn | undefined, sentAt: number): boolean {
    if (dependsOn === undefined || !this.#mayKeep(dependsOn, sentAt)) return false
    const { hashes, validForMs } = dependsOn
    const end = validForMs === undefined ? Infinity : sentAt + validForMs * (1 - DRIFT)
    this.drop(key)
    for (const [oldest, entry] of this.#entries) {
      if (this.#entries.size < this.maxEntries) break
      this.#remove(oldest, entry)
    }
    this.#entries.set(key, { answer: { ...answer }, hashes, end, endDate: answer.validUntil?.getTime() ?? Infinity })
    for (const hash of hashes) {
      const keys = this.#dependents.get(hash)
      if (keys === undefined) this.#dependents.set(hash, new Set([key]))
      else keys.add(key)
    }
    return true
  }

  /** Drops the answer to a question: something fresher is known of it. */
  drop(key: string): void {
    const entry = this.#entries.get(key)
    if (entry !== undefined) this.#remove(key, entry)
  }

  /** Drops every answer: this process makes the server read facts again. The instance of the stream may learn of it late or never. */
  invalidated(now: number): void {
    this.#dropAll()
    // Without a floor, nothing is kept until a stream begins, and for as long as the bound from then on.
    if (this.#floor !== undefined) this.#floor = { moment: this.#floor.moment, time: this.#boundFrom(now) }
  }

  #mayKeep({ hashes, moment, domain }: DependsOn, sentAt: number): boolean {
    const floor = this.#floor
    if (!this.#isOpen || floor === undefined || domain === 0n || domain !== this.#domain) return false
    if (hashes.length === 0) return false
    if ([floor, this.#forgotten].some((each) => moment < each.moment || sentAt <= each.time)) return false
    return hashes.every((hash) => {
      const change = this.#changes.get(hash)
      return change === undefined || (change.moment <= moment && change.until < sentAt)
    })
  }

  /** Takes what a stream has reported. */
  report(stream: Followed, { changes, moment, domain, confirms }: Report, now: number): void {
    if (domain !== this.#domain) {
      this.forget()
      this.#domain = domain
    }
    if (confirms !== undefined) this.#boundMs = confirms.boundMs
    // Changes that an instance may learn of later than what it answers from: those of an invalidation, which have no token, and those
    // that were missed.
    const isLate = moment === 0n || !stream.hasReported
    stream.hasReported = true
    for (const change of changes) {
      if (change.hash === undefined) this.#everything(max(change.moment, moment), now)
      else this.#changed(change.hash, { moment: change.moment, until: isLate ? this.#boundFrom(now) : now })
    }
    if (confirms !== undefined && domain !== 0n) this.#confirm(stream, confirms, moment, now)
  }

  #confirm(stream: Followed, { ageMs, elapsedMs }: NonNullable<Report['confirms']>, moment: bigint, now: number): void {
    // It may begin anew because the source's time has gone back.
    this.#floor ??= { moment, time: this.#boundFrom(now) }
    this.#isOpen = true
    this.#confirmedAt = now
    // The server knew of the call no earlier than it was sent, and made the response no later than it arrived.
    const madeAt = Math.min(stream.startedAt + elapsedMs, now)
    this.#freshAt = Math.max(this.#freshAt, madeAt - ageMs - DRIFT * Math.max(elapsedMs, ageMs))
  }

  /** Anything may have changed, and the source's time may have gone back. */
  #everything(moment: bigint, now: number): void {
    this.#clear()
    this.#floor = { moment, time: this.#boundFrom(now) }
    this.#freshAt = -Infinity
  }

  /** Until when instances that have not noticed something yet may answer from what they read before. It never goes back. */
  #boundFrom(now: number): number {
    this.#latestUntil = Math.max(this.#latestUntil, now + this.#boundMs)
    return this.#latestUntil
  }

  #changed(hash: number, change: Noted): void {
    for (const key of this.#dependents.get(hash) ?? []) this.drop(key)
    const before = this.#changes.get(hash)
    this.#changes.delete(hash)
    this.#changes.set(
      hash,
      before === undefined ? change : { moment: max(before.moment, change.moment), until: Math.max(before.until, change.until) },
    )
    if (this.#changes.size <= this.changesMax) return
    for (const [oldest, { moment, until }] of this.#changes) {
      this.#changes.delete(oldest)
      this.#forgotten = { moment: max(this.#forgotten.moment, moment), time: Math.max(this.#forgotten.time, until) }
      return
    }
  }

  /** The stream has ended. Kept answers wait until another one continues it. */
  lost(): void {
    this.#isOpen = false
  }

  /** No stream can continue where the last one has ended. */
  forget(): void {
    this.#clear()
    this.#floor = undefined
    this.#freshAt = -Infinity
    this.#isOpen = false
  }

  #dropAll(): void {
    this.#entries.clear()
    this.#dependents.clear()
  }

  #clear(): void {
    this.#dropAll()
    this.#changes.clear()
    this.#forgotten = NOTHING
  }

  #remove(key: string, entry: Entry): void {
    this.#entries.delete(key)
    for (const hash of entry.hashes) {
      const keys = this.#dependents.get(hash)
      keys?.delete(key)
      if (keys?.size === 0) this.#dependents.delete(hash)
    }
  }
}
