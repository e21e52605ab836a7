"""What the gRPC ports of both sides, control plane and replica, are made of."""
