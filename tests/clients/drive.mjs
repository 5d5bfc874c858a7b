// Calls the Node.js code of docs/clients.md and docs/lists.md: reads one question per line from stdin, and writes one answer per line to stdout.
// `scripts/test-clients` writes the questions and checks the answers.
import { createInterface } from 'node:readline'
import mongoose from 'mongoose'
import * as driver from './files-driver.mjs'
import { findFiles } from './files.mjs'
import { filesPage, readers } from './lists.mjs'
import { httpStatus, permissions, readable } from './permissions.mjs'
import { checkSince, unshare } from './sharing.mjs'

const mayRead = ({ user, file }) => ({ subject: user, permission: 'read', resource: { type: 'file', id: file } })

const commands = {
  async check(command) {
    const asked = mayRead(command)
    const answer = await (command.since ? checkSince(command.since, asked) : permissions.check(asked))
    return { allowed: answer.allowed, reason: answer.reason ?? 'REASON_UNSPECIFIED', granted_by: answer.grantedBy ?? '' }
  },
  async status({ user, file }) {
    return { status: await httpStatus(user, 'read', 'file', file) }
  },
  async readable({ user, files }) {
    const { allowed, unanswered } = await readable(user, files)
    return { allowed, unanswered: Object.fromEntries([...unanswered].map(([id, { code }]) => [id, code])) }
  },
  async find({ user, own, via, since }) {
    const found = await (via === 'driver' ? driver.findFiles : findFiles)(user, own, { consistency: since && { atLeastAsFresh: since } })
    return { names: found.map(({ name }) => name) }
  },
  async page({ user, token, size, within }) {
    return filesPage(user, { pageToken: token, pageSize: size, within })
  },
  async readers({ file }) {
    return readers(file)
  },
  async unshare({ share }) {
    return unshare(share)
  },
}

await mongoose.connect(process.env.MONGODB_URI)
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  const answer = await commands[command.do](command).catch((error) => ({ error: error.code ?? error.message }))
  console.log(JSON.stringify(answer))
}
process.exit()
