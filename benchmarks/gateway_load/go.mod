module gatewayload

go 1.21
