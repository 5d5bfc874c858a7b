/**
 * Shadow mode: the old check and permcached decide about the same requests, and their differences are collected.
 *
 * Decides nothing.
 */

import { createWriteStream, type WriteStream } from 'node:fs'
import type { Answer, Reason } from './answer.js'
import { askedQuestion, questionText, type Question } from './question.js'

/** A decision that differs. */
export interface Difference {
  /** The resource's type. */
  readonly type: string
  readonly permission: string
  /** What the old check decided. */
  readonly old: boolean
  /** What permcached decided. */
  readonly ours: boolean
  /** Why permcached denies. */
  readonly reason?: Reason
  /** The relation by which permcached allows. */
  readonly grantedBy?: string
  /** When, in ISO 8601. */
  readonly at: string
  /** With `ids`: the subjects, as `type:id`. Ids of other types than the default one are hidden, because they may be secrets. */
  readonly subjects?: readonly string[]
  /** With `ids`: the resource, as `type:id`. */
  readonly resource?: string
}

/** Receives differences. It is called after the response, and its errors are counted as `incomparable`. */
export type Sink = (difference: Difference) => void | PromiseLike<void>

/** How to compare. */
export interface ShadowOptions<Request> {
  /** The check that permcached is to replace. Anything but true is a denial. */
  old: (request: Request) => boolean | PromiseLike<boolean>
  /**
   * `observe`: the old check decides. permcached is asked after the response, and cannot affect it.
   * `enforce`: permcached decides. The old check is asked after the response.
   */
  mode: 'observe' | 'enforce'
  /** The part of the requests that is compared, from 0 to 1. All of them if left out. */
  sample?: number | undefined
  /** What receives the differences, such as `differencesTo(file)`. */
  sink: Sink
  /** Whether differences have the ids of resources, and of subjects of the default type. */
  ids?: boolean | undefined
}

/** Throws a TypeError if the options cannot be used. */
export function validShadow(shadow: ShadowOptions<never>): void {
  const { old, mode, sample = 1, sink } = shadow
  if (mode !== 'observe' && mode !== 'enforce') throw new TypeError("shadow.mode is 'observe' or 'enforce'")
  if (typeof old !== 'function' || typeof sink !== 'function') throw new TypeError('shadow.old and shadow.sink are functions')
  if (typeof sample !== 'number' || !(sample >= 0 && sample <= 1)) throw new TypeError('shadow.sample is a number from 0 to 1')
}

/** Whether a request is compared. */
export function isSampled(shadow: ShadowOptions<never>): boolean {
  return Math.random() < (shadow.sample ?? 1)
}

/** Passes a difference to the sink. */
export async function report(
  shadow: ShadowOptions<never>,
  { type, permission }: { type: string; permission: string },
  old: boolean,
  answer: Answer,
  questions: readonly Question[],
  defaultType: string,
): Promise<void> {
  const asked = questions.map((question) => questionText(askedQuestion(question, defaultType), defaultType))
  const [first] = asked
  await shadow.sink({
    type,
    permission,
    old,
    ours: answer.allowed,
    ...(answer.reason === undefined ? {} : { reason: answer.reason }),
    ...(answer.grantedBy === undefined ? {} : { grantedBy: answer.grantedBy }),
    at: new Date().toISOString(),
    ...(shadow.ids === true && first !== undefined ? { subjects: asked.map(({ subject }) => subject), resource: first.resource } : {}),
  })
}

/** The most bytes that wait to be written. Differences beyond are dropped. */
const WAITING_MAX_BYTES = 1_048_576

/** A file of differences. */
export interface DifferencesFile extends Sink {
  /** How many differences were dropped, because the file had its size or could not be written fast enough. */
  readonly dropped: number
  /** Writes what waits, and closes the file. */
  close(): Promise<void>
}

/** A sink that appends each difference to a file, as one line of JSON. `npx permcached report FILE` shows what the file has. */
export function differencesTo(path: string, { maxBytes = 100_000_000 }: { maxBytes?: number } = {}): DifferencesFile {
  let stream: WriteStream | undefined
  let failure: Error | undefined
  let dropped = 0
  let written = 0
  const open = () => {
    // Readable by the owner only: the file may have ids.
    stream = createWriteStream(path, { flags: 'a', mode: 0o600 })
    stream.on('error', (error) => {
      failure = error
      console.error(`permcached: differences cannot be written to ${path}: ${error.message}`)
    })
    return stream
  }
  const sink = (difference: Difference) => {
    const line = `${JSON.stringify(difference)}\n`
    const file = stream ?? open()
    written += Buffer.byteLength(line)
    if (failure !== undefined || written > maxBytes || file.writableLength > WAITING_MAX_BYTES) dropped += 1
    else file.write(line)
  }
  const close = () =>
    new Promise<void>((resolve) => {
      if (stream === undefined || stream.closed || failure !== undefined) return resolve()
      stream.once('error', () => resolve())
      stream.end(() => resolve())
    })
  return Object.defineProperty(Object.assign(sink, { close }), 'dropped', { get: () => dropped }) as unknown as DifferencesFile
}
