/**
 * Abort signals with many listeners: one listener for each signal, however many questions wait on it. Node.js warns of a
 * leak from the eleventh listener of one signal.
 */

/** Something that an abort ends. */
export interface Abortable {
  aborted(reason: unknown): void
}

interface Entry {
  readonly waiting: Set<Abortable>
  readonly listener: () => void
}

const ENTRIES = new WeakMap<AbortSignal, Entry>()

/** Calls `aborted` when the signal is aborted. */
export function onAbort(signal: AbortSignal, waiter: Abortable): void {
  let entry = ENTRIES.get(signal)
  if (entry === undefined) {
    const waiting = new Set<Abortable>()
    const listener = () => {
      ENTRIES.delete(signal)
      for (const one of waiting) one.aborted(signal.reason)
    }
    entry = { waiting, listener }
    ENTRIES.set(signal, entry)
    signal.addEventListener('abort', listener, { once: true })
  }
  entry.waiting.add(waiter)
}

/** Undoes `onAbort`. */
export function offAbort(signal: AbortSignal, waiter: Abortable): void {
  const entry = ENTRIES.get(signal)
  if (entry === undefined) return
  entry.waiting.delete(waiter)
  if (entry.waiting.size > 0) return
  ENTRIES.delete(signal)
  signal.removeEventListener('abort', entry.listener)
}
