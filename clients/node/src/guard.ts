/**
 * Guards: what a request may do, and what the application answers if it may not. The integrations of Express, Fastify and Nest
 * are thin layers over this.
 *
 * Knows no framework.
 */

import type { Answer } from './answer.js'
import type { CheckOptions } from './consistency.js'
import { InvalidQuestion, NoAnswer, PermcachedError } from './errors.js'
import { idText, NotAnId, type Id } from './id.js'
import type { Permissions } from './permissions.js'
import type { Question, Subject } from './question.js'
import { isSampled, report, validShadow, type ShadowOptions } from './shadow.js'

/** How to find out who asks, and what to do where there is no answer. */
export interface GuardOptions<Request> {
  /** Who asks: the id of the user who has signed in. Without one, the request is refused with 401. */
  subject?: ((request: Request) => Subject | null | undefined | PromiseLike<Subject | null | undefined>) | undefined
  /** Further subjects, such as the link in the URL. The request is allowed if one of all subjects has the permission. */
  anyOf?: ((request: Request) => readonly Subject[] | PromiseLike<readonly Subject[]>) | undefined
  /** Whether each denial is a 404, so that nobody learns what exists. */
  hide?: boolean | undefined
  /** How fresh the answer must be: for example `atLeastAsFresh` of the user's last write. */
  options?: ((request: Request) => CheckOptions) | undefined
  /** What decides where permcached has no answer: `'deny'`, or a function that returns true to allow. Without it, the request is refused with 503. */
  fallback?: 'deny' | ((request: Request, error: NoAnswer) => boolean | PromiseLike<boolean>) | undefined
  /** Is called with each error for which a request was refused with 503, or decided by the fallback. It logs if left out. */
  onNoAnswer?: ((error: PermcachedError, request: Request) => void) | undefined
  /** Compares with the check that permcached is to replace. */
  shadow?: ShadowOptions<Request> | undefined
}

/** Why a request is refused. */
export interface Refusal {
  /** The HTTP status. */
  readonly status: 400 | 401 | 403 | 404 | 503
  /** The body: a short text for programs. */
  readonly body: { readonly error: 'invalid_request' | 'unauthenticated' | 'forbidden' | 'not_found' | 'unavailable' }
  /** For 503: the value of Retry-After. */
  readonly retryAfterSeconds?: number
  /** The denial, if permcached has answered. */
  readonly answer?: Answer
  /** The error, if it has not. */
  readonly error?: PermcachedError
}

/** The decision about one request. */
export interface Decision {
  /** Why the request is refused, or undefined if it is allowed. */
  readonly refusal?: Refusal
  /** The answer, if permcached has decided. */
  readonly answer?: Answer
  /** To be called after the response. */
  readonly after?: () => void
}

/** How often guards decided, by what. */
export interface GuardCounts {
  allowed: number
  denied: number
  /** Requests for which there was no answer, those of the fallback included. */
  noAnswer: number
  /** Requests that the fallback decided. */
  fallbacks: number
  /** Decisions that were compared with the old check. */
  compared: number
  /** Of these, those that differed. */
  different: number
  /** Comparisons that failed, because one side had no answer. */
  incomparable: number
}

/** The counts of a new set of guards. */
export function noCounts(): GuardCounts {
  return { allowed: 0, denied: 0, noAnswer: 0, fallbacks: 0, compared: 0, different: 0, incomparable: 0 }
}

/** What a guard asks, without who asks. */
export interface Guarded<Request> {
  readonly permission: string
  readonly type: string
  readonly id: (request: Request) => unknown
}

/** What a request asks: the same question for each of its subjects. */
interface Asking {
  readonly questions: readonly Question[]
  readonly options: CheckOptions | undefined
}

/** Decides about requests. */
export class Guard<Request> {
  readonly #permissions: Permissions
  readonly #guarded: Guarded<Request>
  readonly #options: GuardOptions<Request>
  readonly #counts: GuardCounts

  constructor(permissions: Permissions, guarded: Guarded<Request>, options: GuardOptions<Request>, counts: GuardCounts) {
    if (typeof guarded.permission !== 'string' || typeof guarded.type !== 'string' || typeof guarded.id !== 'function') {
      throw new TypeError("requirePermission takes a permission, a resource type and a function that returns the resource's id")
    }
    if (options.subject === undefined && options.anyOf === undefined)
      throw new TypeError('requirePermission has no option subject: who asks?')
    const { fallback } = options
    if (fallback !== undefined && fallback !== 'deny' && typeof fallback !== 'function')
      throw new TypeError("fallback is 'deny' or a function")
    if (options.shadow !== undefined) validShadow(options.shadow)
    this.#permissions = permissions
    this.#guarded = guarded
    this.#options = options
    this.#counts = counts
  }

  /** Decides about a request. Rejects only if a function of the application throws. */
  async decide(request: Request): Promise<Decision> {
    const { shadow } = this.#options
    if (shadow === undefined) return this.#decide(request, this.#asking(request))
    // The question is taken from the request now: frameworks change it later.
    const asking = this.#asking(request)
    asking.catch(() => undefined)
    if (shadow.mode === 'observe') {
      const old = (await shadow.old(request)) === true
      const after = () => this.#compare(shadow, asking, old, () => this.#answer(asking))
      return { ...this.#old(old), ...(isSampled(shadow) ? { after } : {}) }
    }
    const decision = await this.#decide(request, asking)
    const { answer } = decision
    if (answer === undefined || !isSampled(shadow)) return decision
    const after = () =>
      this.#compare(
        shadow,
        asking,
        async () => (await shadow.old(request)) === true,
        async () => answer,
      )
    return { ...decision, after }
  }

  async #decide(request: Request, asking: Promise<Asking | Refusal>): Promise<Decision> {
    const found = await asking
    if ('status' in found) return { refusal: found }
    try {
      return this.#decided(await this.#answer(found))
    } catch (error) {
      if (!(error instanceof PermcachedError)) throw error
      if (error instanceof InvalidQuestion) return { refusal: { status: 400, body: { error: 'invalid_request' }, error } }
      this.#counts.noAnswer += 1
      this.#report(error, request)
      const { fallback } = this.#options
      if (fallback === undefined || !(error instanceof NoAnswer)) return { refusal: unavailable(error) }
      this.#counts.fallbacks += 1
      const isAllowed = fallback !== 'deny' && (await fallback(request, error)) === true
      return isAllowed ? {} : { refusal: { ...this.#denied(undefined), error } }
    }
  }

  #report(error: PermcachedError, request: Request): void {
    const { onNoAnswer } = this.#options
    if (onNoAnswer !== undefined) onNoAnswer(error, request)
    else console.error(`permcached: no answer (${error.code}): ${error.message}`)
  }

  /** What the request asks, or why that is not known. */
  async #asking(request: Request): Promise<Asking | Refusal> {
    const { permission, type } = this.#guarded
    const { subject, anyOf, options } = this.#options
    // First of all, while the request is as the application has it now.
    const given = this.#guarded.id(request)
    const own = await subject?.(request)
    const others = (await anyOf?.(request)) ?? []
    const subjects = own === undefined || own === null ? others : [own, ...others]
    if (subjects.length === 0) return { status: 401, body: { error: 'unauthenticated' } }
    let id: Id
    try {
      id = idText(given, "the resource's id")
    } catch (error) {
      if (!(error instanceof NotAnId)) throw error
      return { status: 400, body: { error: 'invalid_request' } }
    }
    const questions = subjects.map((each) => ({ subject: each, permission, resource: { type, id } }))
    return { questions, options: options?.(request) }
  }

  /** The answer of the subject that has the permission, or that of the first subject. */
  async #answer(asking: Asking | Promise<Asking | Refusal>): Promise<Answer> {
    const found = await asking
    if ('status' in found) throw new NoAnswer('the request has no question', { code: 'CANCELLED' })
    const { questions, options } = found
    if (questions.length === 1) return this.#permissions.check(questions[0] as Question, options)
    const results = await this.#permissions.checkAll(questions, options)
    let denial: Answer | undefined
    let missing: PermcachedError | undefined
    for (const result of results) {
      if (result.error !== undefined) missing ??= result.error
      else if (result.allowed) return result
      else denial ??= result
    }
    // A missing answer may have been the one that allows.
    if (missing !== undefined || denial === undefined) throw missing ?? new NoAnswer('there is no answer', { code: 'INTERNAL' })
    return denial
  }

  #decided(answer: Answer): Decision {
    if (answer.allowed !== true) return { refusal: this.#denied(answer), answer }
    this.#counts.allowed += 1
    return { answer }
  }

  #old(isAllowed: boolean): Decision {
    if (!isAllowed) return { refusal: this.#denied(undefined) }
    this.#counts.allowed += 1
    return {}
  }

  #denied(answer: Answer | undefined): Refusal {
    this.#counts.denied += 1
    const isMissing = answer?.reason === 'NOT_FOUND' || answer?.reason === 'EXCLUDED'
    const found = answer === undefined ? {} : { answer }
    if (isMissing || this.#options.hide === true) return { status: 404, body: { error: 'not_found' }, ...found }
    return { status: 403, body: { error: 'forbidden' }, ...found }
  }

  /** Compares both decisions. Nothing of it can affect the request, which has its response. */
  #compare(
    shadow: ShadowOptions<Request>,
    asking: Promise<Asking | Refusal>,
    old: boolean | (() => Promise<boolean>),
    ours: () => Promise<Answer>,
  ): void {
    const compare = async () => {
      const answer = await ours()
      const isOld = typeof old === 'boolean' ? old : await old()
      this.#counts.compared += 1
      if (isOld === answer.allowed) return
      this.#counts.different += 1
      const found = await asking
      await report(shadow, this.#guarded, isOld, answer, 'status' in found ? [] : found.questions, this.#permissions.defaultSubject)
    }
    compare().catch(() => void (this.#counts.incomparable += 1))
  }
}

const RETRY_AFTER_MS = 1_000

function unavailable(error: PermcachedError): Refusal {
  const retryAfterMs = 'retryAfterMs' in error && typeof error.retryAfterMs === 'number' ? error.retryAfterMs : RETRY_AFTER_MS
  return { status: 503, body: { error: 'unavailable' }, retryAfterSeconds: Math.max(1, Math.ceil(retryAfterMs / 1000)), error }
}
