package health

import "context"

// probeTCP passes when the target accepts a connection, which is closed again
// in the ordinary way.
func probeTCP(ctx context.Context, target Target) (string, error) {
	conn, err := dial(ctx, target.Address)
	if err != nil {
		return "", err
	}
	return "connection accepted", conn.Close()
}
