// Drives a fleet with the npm package fly-admin, as its users do. The fleet is where FLY_API_HOSTNAME says (`drover env` sets it). The arguments are
// the name of an app to make, and an image with a busybox shell as its entrypoint. What is not there yet in the served document is left out, and said.
// It prints the names of the steps that were taken, and ends with an error at the first that goes wrong.
'use strict'
const assert = require('node:assert/strict')
// Not createClient: it takes no addresses, and sends the token to the service that the package was made for.
const { default: Client } = require('fly-admin/dist/client')

const api = process.env.FLY_API_HOSTNAME
const token = process.env.FLY_API_TOKEN
const [app, image] = process.argv.slice(2)
const fly = new Client(token, { apiUrl: api, graphqlUrl: process.env.FLY_API_BASE_URL })
const machinePath = '/apps/{app_name}/machines/{machine_id}'

// rest asks what fly-admin has no method for.
async function rest(method, path, body, headers = {}) {
  const answer = await fetch(api + path, {
    method,
    headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json', ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  })
  const text = await answer.text()
  return { status: answer.status, body: text ? JSON.parse(text) : undefined }
}

// until asks again and again, for a minute at most.
async function until(what, find) {
  const end = Date.now() + 60_000
  for (;;) {
    const found = await find()
    if (found) return found
    assert.ok(Date.now() < end, `${what} did not happen within a minute`)
    await new Promise((done) => setTimeout(done, 200))
  }
}

async function main() {
  const document = (await rest('GET', '/v1/openapi.json')).body
  const has = (method, path) => document.paths[path]?.[method.toLowerCase()] !== undefined
  // step takes a step, unless an operation that it needs is not there.
  async function step(name, needs, take) {
    const missing = needs.filter(([method, path]) => !has(method, path))
    if (missing.length > 0) {
      console.log(`left out: ${name}: there is no ${missing.map((m) => m.join(' ')).join(', ')}`)
      return
    }
    try {
      await take()
    } catch (err) {
      err.message = `${name}: ${err.message}`
      throw err
    }
    console.log(`done: ${name}`)
  }
  let machine, volume
  const at = () => ({ app_name: app, machine_id: machine.id })
  const show = () => fly.Machine.getMachine(at())
  const wait = async (state) => fly.Machine.waitMachine({ ...at(), instance_id: (await show()).instance_id, state, timeout: '60s' })
  const messages = async () => (await rest('GET', `/api/v1/apps/${app}/logs`)).body.data.map((l) => l.attributes.message)
  const config = (more) => ({
    image,
    guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 128 },
    env: { COLOR: 'red', ...more },
    init: { cmd: ["trap 'echo signalled' USR1; echo color $COLOR; while :; do sleep 1; done"] },
    metadata: { role: 'web' },
    mounts: [{ volume: volume.id, path: '/data' }],
    restart: { policy: 'no' },
    stop_config: { signal: 'SIGKILL', timeout: '1s' },
  })

  await step('organizations and regions', [], async () => {
    const { organization } = await fly.Organization.getOrganization('personal')
    assert.equal(organization.slug, 'personal')
    const { platform } = await fly.Regions.getRegions()
    assert.ok(platform.regions.some((r) => r.code === 'ams'), JSON.stringify(platform))
  })
  await step('apps', [], async () => {
    await fly.App.createApp({ org_slug: 'personal', app_name: app, network: '' })
    assert.equal((await fly.App.getApp(app)).name, app)
    assert.ok((await fly.App.listApps('personal')).apps.some((a) => a.name === app))
    const detailed = await fly.App.getAppDetailed(app)
    assert.deepEqual([detailed.status, detailed.organization.slug, detailed.ipAddresses], ['pending', 'personal', []])
    await assert.rejects(fly.App.getApp('no-such-app'), /404/)
    await assert.rejects(fly.App.getAppDetailed('no-such-app'), /Could not find App/)
  })
  await step('volumes', [], async () => {
    volume = await fly.Volume.createVolume({ app_name: app, name: 'data', region: 'ams', size_gb: 1, encrypted: true })
    const bigger = await fly.Volume.extendVolume({ app_name: app, volume_id: volume.id, size_gb: 2 })
    assert.equal(bigger.volume.size_gb, 2)
    assert.equal((await fly.Volume.getVolume({ app_name: app, volume_id: volume.id })).size_gb, 2)
    assert.deepEqual((await fly.Volume.listVolumes(app)).map((v) => v.id), [volume.id])
    assert.deepEqual(await fly.Volume.listSnapshots({ app_name: app, volume_id: volume.id }), [])
  })
  await step('a machine', [], async () => {
    machine = await fly.Machine.createMachine({ app_name: app, name: 'one', region: 'ams', config: config() })
    assert.equal(machine.host_status, 'ok')
    await wait('started')
    assert.deepEqual((await fly.Machine.listMachines(app)).map((m) => m.id), [machine.id])
    assert.deepEqual(await fly.Machine.listMachines({ app_name: app, region: 'fra' }), [])
    assert.equal((await show()).state, 'started')
    assert.equal((await fly.Volume.getVolume({ app_name: app, volume_id: volume.id })).attached_machine_id, machine.id)
    await until('a line of the log', async () => (await messages()).includes('color red'))
  })
  await step('signals and events', [], async () => {
    await fly.Machine.signalMachine({ ...at(), signal: 'SIGUSR1' })
    await until('the signal', async () => (await messages()).includes('signalled'))
    const events = await fly.Machine.listEvents(at())
    assert.ok(events.some((e) => e.type === 'start' && e.status === 'started'), JSON.stringify(events))
    assert.ok(events.every((e, i) => i === 0 || e.timestamp <= events[i - 1].timestamp), 'events are not newest first')
  })
  await step('processes', [['GET', machinePath + '/ps']], async () => {
    const processes = await fly.Machine.listProcesses(at())
    assert.ok(processes.some((p) => p.command.includes('color')), JSON.stringify(processes))
  })
  await step('leases', [['POST', machinePath + '/lease'], ['GET', machinePath + '/lease'], ['DELETE', machinePath + '/lease']], async () => {
    const lease = await fly.Machine.acquireLease({ ...at(), ttl: 60, description: 'a test' })
    assert.equal(lease.status, 'success')
    assert.equal((await fly.Machine.getLease(at())).data.nonce, lease.data.nonce)
    await assert.rejects(fly.Machine.stopMachine(at()), /409/)
    const path = `/v1/apps/${app}/machines/${machine.id}/lease`
    assert.equal((await rest('DELETE', path, undefined, { 'fly-machine-lease-nonce': 'wrong' })).status, 409)
    assert.equal((await rest('DELETE', path, undefined, { 'fly-machine-lease-nonce': lease.data.nonce })).status, 200)
    await assert.rejects(fly.Machine.getLease(at()), /404/)
  })
  await step('cordon', [['POST', machinePath + '/cordon'], ['POST', machinePath + '/uncordon']], async () => {
    await fly.Machine.cordonMachine(at())
    assert.equal((await show()).cordoned, true)
    await fly.Machine.uncordonMachine(at())
    assert.ok(!(await show()).cordoned)
  })
  await step('metadata', [['GET', machinePath + '/metadata'], ['POST', machinePath + '/metadata/{key}'], ['DELETE', machinePath + '/metadata/{key}']], async () => {
    const path = `/v1/apps/${app}/machines/${machine.id}/metadata`
    const before = (await show()).instance_id
    assert.ok((await rest('POST', path + '/tier', { value: 'gold' })).status < 300)
    assert.deepEqual((await rest('GET', path)).body, { role: 'web', tier: 'gold' })
    assert.deepEqual((await fly.Machine.listMachines({ app_name: app, 'metadata.tier': 'gold' })).map((m) => m.id), [machine.id])
    assert.deepEqual(await fly.Machine.listMachines({ app_name: app, 'metadata.tier': 'lead' }), [])
    assert.ok((await rest('DELETE', path + '/tier')).status < 300)
    assert.deepEqual((await rest('GET', path)).body, { role: 'web' })
    assert.equal((await show()).instance_id, before)
  })
  await step('an update', [], async () => {
    const before = (await show()).instance_id
    const updated = await fly.Machine.updateMachine({ ...at(), config: config({ COLOR: 'blue' }) })
    assert.notEqual(updated.instance_id, before)
    await wait('started')
    await until('the new color', async () => (await messages()).includes('color blue'))
  })
  await step('versions', [['GET', machinePath + '/versions']], async () => {
    const versions = await fly.Machine.listVersions(at())
    assert.ok(versions.length >= 2, JSON.stringify(versions))
  })
  await step('stop, start, restart', [], async () => {
    await fly.Machine.stopMachine({ ...at(), signal: 'SIGKILL' })
    await wait('stopped')
    assert.equal((await fly.Machine.startMachine(at())).previous_state, 'stopped')
    await wait('started')
    // A wait after a restart may be answered by the start before it: what was reached once counts. So the new start is looked for.
    const starts = async () => (await fly.Machine.listEvents(at())).filter((e) => e.type === 'start' && e.status === 'started').map((e) => e.id)
    const before = await starts()
    await fly.Machine.restartMachine(at())
    await until('the next start', async () => (await starts()).some((id) => !before.includes(id)))
    assert.equal((await show()).state, 'started')
  })
  await step('secrets', [['POST', '/apps/{app_name}/secrets']], async () => {
    await fly.Secret.setSecrets({ appId: app, secrets: [{ key: 'PASSWORD', value: 'swordfish' }] })
    const { secrets } = (await rest('GET', `/v1/apps/${app}/secrets`)).body
    assert.deepEqual(secrets.map((s) => s.name), ['PASSWORD'])
    assert.ok(!JSON.stringify(secrets).includes('swordfish'))
    await fly.Secret.unsetSecrets({ appId: app, keys: ['PASSWORD'] })
  })
  await step('addresses', [], async () => {
    // Until there are edge hosts, with a reason.
    await assert.rejects(fly.Network.allocateIpAddress({ appId: app, type: 'v4' }), /message/)
  })
  await step('the end', [], async () => {
    await assert.rejects(fly.Machine.deleteMachine(at()), /412/)
    await fly.Machine.deleteMachine({ ...at(), force: true })
    await wait('destroyed')
    assert.deepEqual(await fly.Machine.listMachines(app), [])
    await fly.App.deleteApp(app) // with its volume, as clients do
    await assert.rejects(fly.App.getApp(app), /404/)
  })
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
