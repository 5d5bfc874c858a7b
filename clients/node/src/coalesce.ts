/**
 * Coalescing: questions asked in one turn of the event loop become one call.
 *
 * Each waiter keeps its own deadline and signal, and an error of one question reaches only those who asked it. Keeps no
 * answers: a question asked in a later turn is asked again. It passes answers on to those who keep them.
 */

import { status as Code } from '@grpc/grpc-js'
import type { Answer } from './answer.js'
import type { DependsOn, Outcome } from './codec.js'
import { CallFailed, type Connection } from './connection.js'
import type { Consistency } from './consistency.js'
import { errorOf, failureOfStatus, isTooLarge, type Failure } from './failure.js'
import { ask, askAll } from './messages.js'
import { keyOf, questionText, type Asked } from './question.js'
import { offAbort, onAbort, type Abortable } from './signals.js'

/** The most questions in one call. The server accepts 10,000, but smaller calls spread over its threads. */
export const BATCH_MAX = 1_000

/** The most UTF-16 units of ids and names in one call. Each becomes at most 3 bytes, and the server accepts 4 MiB. */
const LENGTH_MAX = 1_000_000

/** How much earlier a waiter's deadline may be than that of its call, without a timer of its own. */
const DEADLINE_TOLERANCE_MS = 5

// The functions of the system, also where a test replaces them by fake ones.
const { setImmediate, setTimeout, clearTimeout } = globalThis

/** What limits the wait for one answer. */
export interface Wait {
  readonly deadline: number
  readonly signal?: AbortSignal | undefined
}

/** How often things happened. */
export interface CoalescerCounts {
  questions: number
  calls: number
}

/** Keeps answers. */
export interface Keeper {
  /** The present, if it takes answers to what is sent now. */
  now(): number | undefined
  /** Takes an answer whose request was sent at `sentAt`. */
  put(key: string, answer: Answer, dependsOn: DependsOn | undefined, sentAt: number): void
  /** Drops the answer to a question. */
  drop(key: string): void
}

/** Someone who waits for an answer. */
class Waiter implements Abortable {
  readonly promise: Promise<Answer>
  #resolve!: (answer: Answer) => void
  #reject!: (reason: unknown) => void
  #timer: NodeJS.Timeout | undefined
  isSettled = false

  constructor(
    readonly item: Item,
    readonly wait: Wait,
  ) {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    if (wait.signal !== undefined) onAbort(wait.signal, this)
  }

  /** Ends the wait at its own deadline, if the call has a later one. */
  limit(deadline: number, late: (waiter: Waiter) => void): void {
    if (this.isSettled || this.wait.deadline >= deadline - DEADLINE_TOLERANCE_MS) return
    this.#timer ??= setTimeout(() => late(this), Math.max(0, this.wait.deadline - Date.now()))
  }

  resolve(answer: Answer): void {
    if (this.#settle()) this.#resolve(answer)
  }

  reject(reason: unknown): void {
    if (this.#settle()) this.#reject(reason)
  }

  aborted(reason: unknown): void {
    this.reject(reason)
    this.item.left()
  }

  #settle(): boolean {
    if (this.isSettled) return false
    this.isSettled = true
    if (this.#timer !== undefined) clearTimeout(this.#timer)
    if (this.wait.signal !== undefined) offAbort(this.wait.signal, this)
    return true
  }
}

/** A question, and who waits for its answer. */
class Item {
  readonly waiters: Waiter[] = []
  batch: Batch | undefined

  constructor(readonly question: Asked) {}

  get isWanted(): boolean {
    return this.waiters.some((waiter) => !waiter.isSettled)
  }

  /** A waiter has left. If it was the last one of its call, the call ends. */
  left(): void {
    this.batch?.left()
  }
}

/** A call on its way. */
class Batch {
  readonly #canceller = new AbortController()

  constructor(readonly items: readonly Item[]) {
    for (const item of items) item.batch = this
  }

  get signal(): AbortSignal {
    return this.#canceller.signal
  }

  left(): void {
    if (!this.items.some((item) => item.isWanted)) this.#canceller.abort()
  }
}

/** The questions of one turn with the same consistency. */
class Group {
  readonly #items = new Map<string, Item>()
  readonly chunks: Item[][] = []
  #length = 0

  constructor(readonly consistency: Consistency) {}

  add(question: Asked): Item {
    const key = keyOf(question)
    const existing = this.#items.get(key)
    if (existing !== undefined) return existing
    const item = new Item(question)
    this.#items.set(key, item)
    let chunk = this.chunks.at(-1)
    this.#length += key.length
    if (chunk === undefined || chunk.length >= BATCH_MAX || this.#length > LENGTH_MAX) {
      chunk = []
      this.chunks.push(chunk)
      this.#length = key.length
    }
    chunk.push(item)
    return item
  }
}

/** Joins questions to calls. */
export class Coalescer {
  readonly #connection: Connection
  readonly #defaultType: string
  readonly #isJoining: boolean
  #groups = new Map<string, Group>()
  #isScheduled = false
  readonly #open = new Set<Promise<void>>()
  readonly counts: CoalescerCounts = { questions: 0, calls: 0 }

  constructor(
    connection: Connection,
    defaultType: string,
    isJoining: boolean,
    readonly keeper?: Keeper,
  ) {
    this.#connection = connection
    this.#defaultType = defaultType
    this.#isJoining = isJoining
  }

  /** Asks one question. */
  ask(question: Asked, consistency: Consistency, wait: Wait): Promise<Answer> {
    if (!this.#isJoining) return this.askTogether([question], consistency, wait)[0] as Promise<Answer>
    let group = this.#groups.get(consistency.key)
    if (group === undefined) {
      group = new Group(consistency)
      this.#groups.set(consistency.key, group)
    }
    if (!this.#isScheduled) {
      this.#isScheduled = true
      setImmediate(() => this.flush())
    }
    return this.#join(group, question, wait)
  }

  /** Asks several questions: with those of others if questions are joined, else in calls of their own. */
  askTogether(questions: readonly Asked[], consistency: Consistency, wait: Wait): Promise<Answer>[] {
    if (this.#isJoining) return questions.map((question) => this.ask(question, consistency, wait))
    const group = new Group(consistency)
    const answers = questions.map((question) => this.#join(group, question, wait))
    this.#send(group)
    return answers
  }

  #join(group: Group, question: Asked, wait: Wait): Promise<Answer> {
    this.counts.questions += 1
    if (wait.signal?.aborted) return Promise.reject(wait.signal.reason)
    const item = group.add(question)
    const waiter = new Waiter(item, wait)
    item.waiters.push(waiter)
    return waiter.promise
  }

  /** Sends what was asked in this turn. */
  flush(): void {
    const groups = this.#groups
    this.#groups = new Map()
    this.#isScheduled = false
    for (const group of groups.values()) this.#send(group)
  }

  #send(group: Group): void {
    for (const chunk of group.chunks) this.#start(chunk, group.consistency)
  }

  #start(items: readonly Item[], consistency: Consistency): void {
    const call = this.#call(items, consistency).finally(() => this.#open.delete(call))
    this.#open.add(call)
  }

  /** Waits until every call has ended. */
  async settled(): Promise<void> {
    this.flush()
    while (this.#open.size > 0) await Promise.all(this.#open)
  }

  async #call(all: readonly Item[], consistency: Consistency): Promise<void> {
    const items = all.filter((item) => item.isWanted)
    if (items.length === 0) return
    const batch = new Batch(items)
    const deadline = latest(items)
    for (const item of items) for (const waiter of item.waiters) waiter.limit(deadline, (late) => this.#late(late))
    const sentAt = consistency.message === undefined ? this.keeper?.now() : undefined
    const keeps = sentAt !== undefined
    try {
      this.counts.calls += 1
      const questions = items.map(({ question }) => question)
      const limits = { deadline, signal: batch.signal }
      const outcomes =
        questions.length === 1
          ? [await ask(this.#connection, questions[0] as Asked, consistency, keeps, limits)]
          : await askAll(this.#connection, questions, consistency, keeps, limits)
      if (keeps) this.#keep(items, outcomes, sentAt)
      else if (consistency.message !== undefined) this.#drop(items, outcomes)
      items.forEach((item, index) => this.#settle(item, outcomes[index]))
    } catch (error) {
      this.#failed(items, consistency, error)
    }
  }

  #keep(items: readonly Item[], outcomes: readonly Outcome[], sentAt: number): void {
    items.forEach(({ question }, index) => {
      const outcome = outcomes[index]
      if (outcome?.answer !== undefined) this.keeper?.put(keyOf(question), outcome.answer, outcome.dependsOn, sentAt)
    })
  }

  /** An answer that was asked for with a consistency of its own may be fresher than a kept one, which no later question is to see. */
  #drop(items: readonly Item[], outcomes: readonly Outcome[]): void {
    items.forEach(({ question }, index) => {
      if (outcomes[index]?.answer !== undefined) this.keeper?.drop(keyOf(question))
    })
  }

  #settle(item: Item, outcome: Outcome | undefined): void {
    if (outcome?.answer !== undefined) {
      const { answer } = outcome
      // Each waiter has an object of its own, so that none sees what another does with it.
      item.waiters.forEach((waiter, index) => waiter.resolve(index === 0 ? answer : { ...answer }))
    } else if (outcome?.error !== undefined) {
      this.#reject(item, failureOfStatus(outcome.error))
    } else {
      this.#reject(item, { code: Code.INTERNAL, message: 'the server sent no answer to this question', fields: [] })
    }
  }

  #failed(items: readonly Item[], consistency: Consistency, error: unknown): void {
    if (!(error instanceof CallFailed)) {
      for (const item of items) for (const waiter of item.waiters) waiter.reject(error)
    } else if (items.length > 1 && isTooLarge(error.failure)) {
      // The questions together are too large for one call, and not necessarily each of them.
      const half = Math.ceil(items.length / 2)
      this.#start(items.slice(0, half), consistency)
      this.#start(items.slice(half), consistency)
    } else {
      for (const item of items) this.#reject(item, error.failure)
    }
  }

  #reject(item: Item, failure: Failure): void {
    for (const waiter of item.waiters) {
      if (!waiter.isSettled) waiter.reject(errorOf(failure, questionText(item.question, this.#defaultType)))
    }
  }

  #late(waiter: Waiter): void {
    const failure = { code: Code.DEADLINE_EXCEEDED, message: 'the answer did not arrive before the deadline', fields: [] }
    waiter.reject(errorOf(failure, questionText(waiter.item.question, this.#defaultType)))
    waiter.item.left()
  }
}

/** The latest deadline of those who wait. */
function latest(items: readonly Item[]): number {
  let deadline = 0
  for (const item of items) {
    for (const { wait, isSettled } of item.waiters) if (!isSettled && wait.deadline > deadline) deadline = wait.deadline
  }
  return deadline
}
