/** Errors of the mongoose plugin. They are errors of the calling code, and no answer has anything to do with them. */

/** The query that would have been sent is not the one that the permission requires. Nothing is returned. */
export class FilterChanged extends Error {
  override name = 'FilterChanged'
}

/** The query cannot be restricted, or is not although the model requires it. Nothing was sent. */
export class NotPermitted extends Error {
  override name = 'NotPermitted'
}
