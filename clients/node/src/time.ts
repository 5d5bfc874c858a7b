/** Durations and points in time, between protobuf and JavaScript. */

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
