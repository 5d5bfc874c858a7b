/** Durations and points in time, between protobuf and JavaScript, and a clock for durations. */

import type { Duration, Timestamp } from '@bufbuild/protobuf/wkt'

/** A duration in milliseconds, rounded up. */
export function durationMs(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Number(duration.seconds) * 1000 + Math.ceil(duration.nanos / 1e6)
}

/** The duration of these milliseconds. */
export function durationOf(ms: number): { seconds: bigint; nanos: number } {
  const seconds = Math.floor(ms / 1000)
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) }
}

/** A point in time, rounded down to the millisecond. */
export function dateOf(timestamp: Timestamp): Date {
  return new Date(Number(timestamp.seconds) * 1000 + Math.floor(timestamp.nanos / 1e6))
}

/** How much the two clocks of this machine may differ between two looks at them, in milliseconds, without a reason. */
const TOLERANCE_MS = 50

/** A clock for durations. It never goes back, and includes the time during which the machine was suspended. */
export class Clock {
  #steady = performance.now()
  #wall = Date.now()
  #skippedMs = 0

  /** The present, in milliseconds since some time. */
  now(): number {
    const steady = performance.now()
    const wall = Date.now()
    // The first clock stands still while the machine is suspended. The second one may also have been set.
    const skippedMs = wall - this.#wall - (steady - this.#steady)
    if (skippedMs > TOLERANCE_MS) this.#skippedMs += skippedMs
    this.#steady = steady
    this.#wall = wall
    return steady + this.#skippedMs
  }
}
