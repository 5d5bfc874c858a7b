/**
 * Questions: who wants to do what to which resource.
 *
 * Does not send anything.
 */

import { flaw, idText, NotAnId, type Id } from './id.js'
import type { FieldViolation } from './errors.js'

/** Nobody in particular: a visitor who has not signed in. Only flags of documents can allow something. */
export interface Anonymous {
  readonly anonymous: true
}

/** A subject of a type that the schema defines, such as a `link` whose id is the token in a URL. */
export interface TypedSubject {
  readonly type: string
  readonly id: Id
}

/** A subject: an id of the default type, a subject of another type, or {@link anonymous}. */
export type Subject = Id | TypedSubject | Anonymous

/** A resource. */
export interface Resource {
  readonly type: string
  readonly id: Id
}

/** One question. */
export interface Question {
  readonly subject: Subject
  /** A permission of the resource's type, such as `read`. */
  readonly permission: string
  readonly resource: Resource
}

/** A question as text, for logs. It has no id of a subject whose type may be secret. */
export interface QuestionText {
  readonly subject: string
  readonly permission: string
  readonly resource: string
}

/** The anonymous subject. */
export const anonymous: Anonymous = Object.freeze({ anonymous: true })

/** A subject of another type than the default one: `subject('link', token)`. */
export function subject(type: string, id: Id): TypedSubject {
  return { type, id }
}

/** A question whose parts are texts. */
export interface Asked {
  readonly subjectType: string
  readonly subjectId: string
  readonly anonymous: boolean
  readonly permission: string
  readonly resourceType: string
  readonly resourceId: string
}

/** The parts of a subject. An empty type means the schema's default. */
export interface AskedSubject {
  readonly type: string
  readonly id: string
  readonly anonymous: boolean
}

const ANONYMOUS: AskedSubject = { type: '', id: '', anonymous: true }

/** The parts of a subject. Throws a TypeError if it is none. */
export function askedSubject(subject: unknown, defaultType: string): AskedSubject {
  if (typeof subject === 'object' && subject !== null && !('toHexString' in subject)) {
    if ('anonymous' in subject && subject.anonymous === true) return ANONYMOUS
    if ('type' in subject && typeof subject.type === 'string' && subject.type !== '' && 'id' in subject) {
      return { type: subject.type, id: idText(subject.id, "the subject's id"), anonymous: false }
    }
    throw new NotAnId('the subject must be an id, { type, id }, or `anonymous`')
  }
  return { type: defaultType, id: idText(subject, 'the subject'), anonymous: false }
}

/** The parts of a question. Throws a TypeError if a part has the wrong type. */
export function asked(subject: unknown, permission: unknown, type: unknown, id: unknown, defaultType: string): Asked {
  if (typeof permission !== 'string') throw new TypeError('the permission must be a string')
  if (typeof type !== 'string') throw new TypeError("the resource's type must be a string")
  const who = askedSubject(subject, defaultType)
  return {
    subjectType: who.type,
    subjectId: who.id,
    anonymous: who.anonymous,
    permission,
    resourceType: type,
    resourceId: idText(id, "the resource's id"),
  }
}

/** The parts of a question. Throws a TypeError if it is none. */
export function askedQuestion(question: Question, defaultType: string): Asked {
  const resource = question?.resource as Resource | undefined
  if (typeof resource !== 'object' || resource === null) {
    throw new TypeError('a question is { subject, permission, resource: { type, id } }')
  }
  return asked(question.subject, question.permission, resource.type, resource.id, defaultType)
}

/** The fields that cannot be sent. The server would reject them, or receive another text. */
export function flaws(question: Asked): FieldViolation[] {
  const found: FieldViolation[] = []
  const look = (field: string, text: string) => {
    const description = flaw(text)
    if (description !== undefined) found.push({ field, description })
  }
  look('subject.type', question.subjectType)
  look('subject.id', question.subjectId)
  look('permission', question.permission)
  look('resource.type', question.resourceType)
  look('resource.id', question.resourceId)
  return found
}

/** A text that only identical questions have in common: each part follows its length. */
export function keyOf(question: Asked): string {
  const { subjectType, subjectId, permission, resourceType, resourceId } = question
  return (
    (question.anonymous ? 'a' : 's') +
    `${subjectType.length}:${subjectType}${subjectId.length}:${subjectId}${permission.length}:${permission}` +
    `${resourceType.length}:${resourceType}${resourceId.length}:${resourceId}`
  )
}

/** A question as text. Ids of subjects are shown only for the default type: those of links and codes are secrets. */
export function questionText(question: Asked, defaultType: string): QuestionText {
  return {
    subject: subjectText(question, defaultType),
    permission: question.permission,
    resource: question.resourceId === '' ? question.resourceType : `${question.resourceType}:${question.resourceId}`,
  }
}

function subjectText(question: Asked, defaultType: string): string {
  if (question.anonymous) return 'anonymous'
  if (question.subjectType === defaultType) return `${defaultType}:${question.subjectId}`
  return `${question.subjectType}:(hidden)`
}
