package vhostuser

import "encoding/binary"

// Requests of the frontend (vhost-user.rst, "Front-end message types").
const (
	reqGetFeatures         = 1
	reqSetFeatures         = 2
	reqSetOwner            = 3
	reqResetOwner          = 4
	reqSetMemTable         = 5
	reqSetLogBase          = 6
	reqSetLogFD            = 7
	reqSetVringNum         = 8
	reqSetVringAddr        = 9
	reqSetVringBase        = 10
	reqGetVringBase        = 11
	reqSetVringKick        = 12
	reqSetVringCall        = 13
	reqSetVringErr         = 14
	reqGetProtocolFeatures = 15
	reqSetProtocolFeatures = 16
	reqGetQueueNum         = 17
	reqSetVringEnable      = 18
	reqSetBackendReqFD     = 21
	reqGetConfig           = 24
	reqSetConfig           = 25
	reqGetInflightFD       = 31
	reqSetInflightFD       = 32
	reqGetMaxMemSlots      = 36
	reqAddMemReg           = 37
	reqRemMemReg           = 38
)

// backendConfigChange is the one message that the backend sends by itself.
const backendConfigChange = 2

// Feature bits: virtio's, the disk's, and those of vhost.
const (
	featSizeMax     = 1 << 1
	featRO          = 1 << 5
	featSegMax      = 1 << 2
	featBlkSize     = 1 << 6
	featFlush       = 1 << 9
	featTopology    = 1 << 10
	featMQ          = 1 << 12
	featDiscard     = 1 << 13
	featWriteZeroes = 1 << 14
	featLogAll      = 1 << 26
	featIndirect    = 1 << 28
	featEventIdx    = 1 << 29
	featProtocol    = 1 << 30
	featVersion1    = 1 << 32
)

// Protocol feature bits.
const (
	protoMQ         = 1 << 0
	protoLogShmFD   = 1 << 1
	protoReplyAck   = 1 << 3
	protoBackendReq = 1 << 5
	protoConfig     = 1 << 9
	protoInflight   = 1 << 12
	protoMemSlots   = 1 << 15

	protocolFeatures = protoMQ | protoLogShmFD | protoReplyAck | protoBackendReq | protoConfig | protoInflight | protoMemSlots
)

// Message flags.
const (
	flagVersion     = 1
	flagVersionMask = 3
	flagReply       = 1 << 2
	flagNeedReply   = 1 << 3
)

const (
	headerSize = 12
	// maxPayload is more than any message has that this backend knows: a memory table has 8 + 8*32 bytes, a config 12 + 256.
	maxPayload = 1024
	// maxFDs is what a memory table may carry.
	maxFDs = 8
	// maxTableRegions is what SET_MEM_TABLE may list, maxRegions what ADD_MEM_REG may add up to.
	maxTableRegions = 8
	maxRegions      = 64
	// maxQueues is more than a VM has CPUs.
	maxQueues = 64
	// maxRing bounds the size of a ring. virtio allows 32768; QEMU's default is 128.
	maxRing = 1024
	// maxConfig is what GET_CONFIG may ask for.
	maxConfig = 256
	// noFD in the payload of SET_VRING_KICK, _CALL and _ERR says that no descriptor comes with it.
	noFD = 1 << 8
)

var order = binary.LittleEndian

func u64(n uint64) []byte { return order.AppendUint64(nil, n) }
