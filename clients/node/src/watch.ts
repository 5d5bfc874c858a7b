/**
 * Watching: a stream of changes that continues on another instance when one ends it.
 *
 * Keeps no changes.
 */

import { create } from '@bufbuild/protobuf'
import { CallFailed, pause, type Connection } from './connection.js'
import { freshnessOf, type Freshness } from './consistency.js'
import { errorOf, isTransient, type Failure } from './failure.js'
import { WatchRequestSchema, WatchService, type Change as ChangeMessage, type WatchResponse } from './gen/permcached/v1/watch_service_pb.js'

/** Something that changed. A check with `atLeastAsFresh` of its token sees the change. */
export type Change =
  /** Anything may have changed. Also reported if changes may have been missed. */
  | { readonly type: 'everything'; readonly token?: string }
  | { readonly type: 'document'; readonly collection: string; readonly id: string; readonly token: string }
  /** A document that is, or was, among those whose `field` has the value `id`. */
  | { readonly type: 'key'; readonly collection: string; readonly field: string; readonly id: string; readonly token: string }
  /** A call of `invalidate` named this subject. */
  | { readonly type: 'subject'; readonly subjectType: string; readonly subjectId: string; readonly token: string }

/** Changes, and how far they reach. There are none if the response only confirms that nothing has changed. */
export interface Changes {
  readonly changes: readonly Change[]
  /** Everything up to this token has been reported. To continue later, watch with `since` of it. */
  readonly token?: string
}

/** Where to begin, and when to end. */
export interface WatchOptions {
  /** Begin after this moment: the last `token` of an earlier stream, or the `asOf` of an answer. Otherwise now. */
  since?: Freshness | undefined
  /** Ends the iteration when it is aborted. */
  signal?: AbortSignal | undefined
}

/** How long a server may be silent. One that receives changes responds every 500 ms. */
const SILENCE_MAX_MS = 5_000

/** The pause before the next instance is tried, doubled with each failure. */
const PAUSE_MS = 50
const PAUSE_MAX_MS = 2_000

/** The changes from a moment on, until the signal is aborted. */
export async function* watch(connection: Connection, options: WatchOptions): AsyncGenerator<Changes, void, undefined> {
  const { signal } = options
  let since = options.since === undefined ? undefined : freshnessOf(options.since)
  let hasGap = false
  let failures = 0
  while (!signal?.aborted) {
    try {
      const request = create(WatchRequestSchema, since === undefined ? {} : { since })
      for await (const response of responses(connection, request, signal)) {
        failures = 0
        const { token } = response
        if (token !== '') since = freshnessOf(token)
        const changes = response.changes.map(changeOf)
        if (hasGap) changes.unshift({ type: 'everything' })
        hasGap = false
        yield { changes, ...(token === '' ? {} : { token }) }
      }
    } catch (error) {
      if (signal?.aborted) return
      if (!(error instanceof CallFailed)) throw error
      if (!mayContinue(error.failure)) throw errorOf(error.failure)
      // Without a moment to continue from, changes may be missed until the next stream begins.
      hasGap ||= since === undefined && failures === 0
      failures += 1
      const backoffMs = Math.min(PAUSE_MS * 2 ** (failures - 1), PAUSE_MAX_MS)
      await pause(Math.max(backoffMs, error.failure.retryAfterMs ?? 0), signal).catch(() => undefined)
    }
  }
}

/** Whether another stream may succeed. CANCELLED is how silence, and HTTP/2, end one. */
function mayContinue(failure: Failure): boolean {
  return isTransient(failure) || ['CANCELLED', 'DEADLINE_EXCEEDED', 'INTERNAL', 'UNKNOWN'].includes(errorOf(failure).code)
}

/** The responses of one stream. Throws `CallFailed` when it ends, however it ends. */
async function* responses(
  connection: Connection,
  request: Parameters<typeof connection.stream<typeof WatchRequestSchema, (typeof WatchService.method.watch)['output']>>[1],
  signal: AbortSignal | undefined,
): AsyncGenerator<WatchResponse, void, undefined> {
  const stream = connection.stream(WatchService.method.watch, request)
  const cancel = () => stream.cancel()
  let silence = setTimeout(cancel, SILENCE_MAX_MS)
  signal?.addEventListener('abort', cancel, { once: true })
  try {
    if (signal?.aborted) cancel()
    for await (const response of stream) {
      clearTimeout(silence)
      yield response as WatchResponse
      // The time that the caller takes is not silence of the server.
      silence = setTimeout(cancel, SILENCE_MAX_MS)
    }
  } catch (error) {
    throw new CallFailed(connection.streamFailure(error))
  } finally {
    clearTimeout(silence)
    signal?.removeEventListener('abort', cancel)
    stream.cancel()
  }
  throw new CallFailed({ code: 14, message: 'the server ended the stream', fields: [] })
}

function changeOf({ what, token }: ChangeMessage): Change {
  switch (what.case) {
    case 'document':
      return { type: 'document', collection: what.value.collection, id: what.value.id, token }
    case 'key':
      return { type: 'key', collection: what.value.collection, field: what.value.field, id: what.value.id, token }
    case 'subject':
      return { type: 'subject', subjectType: what.value.type, subjectId: what.value.id, token }
    default:
      // Also a change of a kind that this package does not know.
      return { type: 'everything', token }
  }
}
