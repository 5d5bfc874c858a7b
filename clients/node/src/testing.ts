/**
 * For tests of applications: the real server over documents of the test, or answers from a table.
 *
 * @module permcached/testing
 */

export { startPermcached, type StartOptions, type StartedPermcached } from './testing/server.js'
export { fakePermissions, FakePermissions, type FakeAnswers, type FakeTable } from './testing/fake.js'
